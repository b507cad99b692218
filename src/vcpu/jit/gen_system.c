/* CSRs that can be read or written without a change of what the hart may do. */
#include "vcpu/jit/gen.h"

bool gen_system(struct gen *g, const struct insn *insn)
{
    (void)g, (void)insn;
    return false;
}
