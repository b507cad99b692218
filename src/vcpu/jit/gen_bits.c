/* Zba, Zbb and Zbs. */
#include "vcpu/jit/gen.h"

bool gen_bits(struct gen *g, const struct insn *insn)
{
    (void)g, (void)insn;
    return false;
}
