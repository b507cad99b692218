/* C that generated code calls: what it cannot do itself. */
#include "vcpu/jit/jit_priv.h"
#include "vcpu/jit/lockstep.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* --- floating point state -------------------------------------------------------------------------------- */

/* While generated code uses floating point, MXCSR holds the guest's rounding mode and gathers its flags. `fp_ready` says
 * so; C runs with the host's. FS is made dirty when that begins. */
enum { MXCSR_HOST = 0x1f80, MXCSR_ROUND = 13 };

#if defined(__x86_64__)
void jit_fp_park(struct vcpu *v)
{
    if (!v->fp_ready)
        return;
    unsigned flags = _mm_getcsr();

    v->hart.fflags |= (uint8_t)((flags & 0x01) << 4 | (flags & 0x04) << 1 | (flags & 0x08) >> 1 | (flags & 0x10) >> 3 |
                                (flags & 0x20) >> 5);
    v->fp_ready = false;
    _mm_setcsr(MXCSR_HOST);
}

bool jit_fp_unpark(struct vcpu *v)
{
    static const uint8_t rounding[] = { 0, 3, 1, 2 }; /* RNE RTZ RDN RUP */

    if (!(v->hart.mstatus & MSTATUS_FS) || v->hart.frm >= sizeof(rounding))
        return false;
    v->hart.mstatus |= MSTATUS_FS;
    _mm_setcsr(MXCSR_HOST | (unsigned)rounding[v->hart.frm] << MXCSR_ROUND);
    v->fp_ready = true;
    return true;
}
#else
void jit_fp_park(struct vcpu *v)
{
    (void)v;
}

bool jit_fp_unpark(struct vcpu *v)
{
    (void)v;
    return false;
}
#endif

bool jit_fp(struct vcpu *v)
{
    if (jit_fp_unpark(v))
        return true;
    engine_count(v, (int64_t)v->jit_operand);
    v->hart.pc = v->page_va + v->value;
    v->interpret = true;
    return false;
}

/* --- memory ---------------------------------------------------------------------------------------------- */

static void set_register(struct vcpu *v, uint32_t access, unsigned bytes)
{
    unsigned reg = access >> ACCESS_REG & 31, spare = 64 - 8 * bytes;
    uint64_t value = v->value;

    if (access >> ACCESS_FP & 1) {
        v->hart.f[reg] = bytes == 4 ? value | UINT64_C(0xffffffff00000000) : value;
        return;
    }
    if (access >> ACCESS_SIGNED & 1)
        value = (uint64_t)((int64_t)(value << spare) >> spare);
    v->hart.x[reg] = value;
}

bool jit_access(struct vcpu *v)
{
    uint64_t va = v->value;
    uint32_t access = (uint32_t)v->jit_operand;
    unsigned bytes = 1u << (access >> ACCESS_SIZE & 3), reg = access >> ACCESS_REG & 31;
    int64_t retired = access >> ACCESS_RETIRED & 255;
    bool store = access >> ACCESS_STORE & 1, fp = v->fp_ready, done;
    struct uop u = { .off = access & (PAGE_BYTES - 1) };

    jit_fp_park(v); /* a device may be behind it */
    engine_count(v, retired);
    if (store) {
        done = engine_store(v, &u, va, bytes, access >> ACCESS_FP & 1 ? v->hart.f[reg] : v->hart.x[reg]);
    } else {
        done = engine_load(v, &u, va, bytes);
        if (done)
            set_register(v, access, bytes);
    }
    if (!done)
        return false;
    engine_count(v, -retired);
    if (fp)
        jit_fp_unpark(v);
    return true;
}

/* --- everything else ------------------------------------------------------------------------------------- */

bool jit_interp(struct vcpu *v)
{
    struct uop *u = (struct uop *)(uintptr_t)v->jit_operand; /* NOLINT(performance-no-int-to-ptr) */
    bool fp = v->fp_ready;

    jit_fp_park(v);
    if (UNLIKELY(v->dry) && lockstep_refuses(u->raw)) {
        lockstep_end(v, u); /* u->left says 1: counted already */
        return false;
    }
    if (!u->fn(v, u))
        return false;
    if (fp && (v->hart.mstatus & MSTATUS_FS) == MSTATUS_FS) /* or it has just said otherwise */
        jit_fp_unpark(v);
    return true;
}

OP(PSEUDO_jit_return)
{
    (void)v;
    return u;
}
