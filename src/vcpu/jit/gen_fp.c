/* F and D. */
#include "vcpu/jit/gen.h"

bool gen_fp(struct gen *g, const struct insn *insn)
{
    (void)g, (void)insn;
    return false;
}
