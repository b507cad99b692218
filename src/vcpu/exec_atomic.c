/* LR/SC, AMOs, fences, cache blocks. Guest atomics are host atomics on guest RAM; a device has none.
 *
 * LR/SC is "remember the value, compare and swap": the value may have been away and back between the two, which a
 * program that follows the ISA's rules for LR/SC loops cannot tell. */
#include "vcpu/engine.h"
#include "vcpu/guest_access.h"

enum { CACHE_BLOCK_BYTES = 64 };

/* Host address for an atomic access, or NULL: trapped. */
static __attribute__((noinline)) uint8_t *atomic_reach(struct vcpu *v, struct uop *u, uint64_t va, unsigned bytes,
                                                       enum mmu_access access, uint64_t *gpa)
{
    bool write = access == MMU_WRITE;
    uint64_t cause;
    struct reach at = { 0 };

    if (va & (bytes - 1))
        cause = write ? CAUSE_STORE_MISALIGNED : CAUSE_LOAD_MISALIGNED;
    else
        cause = engine_reach(v, va, bytes, access, &at);
    if (!cause && !at.host)
        cause = write ? CAUSE_STORE_ACCESS : CAUSE_LOAD_ACCESS;
    if (cause) {
        engine_trap(v, u, cause, va);
        return NULL;
    }
    if (gpa)
        *gpa = at.gpa;
    return at.host;
}

static inline uint8_t *amo_host(struct vcpu *v, struct uop *u, unsigned bytes)
{
    uint64_t va = XR(rs1);
    const struct tlb_entry *entry = &v->tlb->write[tlb_index(va)];

    /* Aligned is asked apart: the low bits of a tag are flags, and an address must not pass for them. */
    if (LIKELY(!(va & (bytes - 1)) && entry->tag == (va & TLB_PAGE_MASK)))
        return (uint8_t *)(va + entry->addend); /* NOLINT(performance-no-int-to-ptr) */
    return atomic_reach(v, u, va, bytes, MMU_WRITE, NULL);
}

static bool load_reserved(struct vcpu *v, struct uop *u, unsigned bytes)
{
    struct hart *hart = &v->hart;
    uint64_t gpa = 0;
    uint8_t *host = atomic_reach(v, u, XR(rs1), bytes, MMU_READ, &gpa);

    if (!host)
        return false;
    uint64_t value = bytes == 8 ? guest_load_64(host) : (uint64_t)(int64_t)(int32_t)guest_load_32(host);
    atomic_thread_fence(memory_order_acquire); /* lr.aq; for the compiler, on this host */
    hart->reserved = true;
    hart->reserved_gpa = gpa;
    hart->reserved_value = value;
    v->reserved_bytes = bytes;
    hart->x[u->rd] = value;
    hart->x[0] = 0;
    return true;
}

static bool store_conditional(struct vcpu *v, struct uop *u, unsigned bytes)
{
    struct hart *hart = &v->hart;
    bool held = hart->reserved && v->reserved_bytes == bytes, stored = false;
    uint64_t gpa = 0, value = XR(rs2);

    hart->reserved = false; /* whatever becomes of it */
    uint8_t *host = atomic_reach(v, u, XR(rs1), bytes, MMU_WRITE, &gpa);
    if (!host)
        return false;
    if (held && gpa == hart->reserved_gpa) {
        if (bytes == 8) {
            uint64_t expected = hart->reserved_value;

            stored = __atomic_compare_exchange_n((uint64_t *)(void *)host, &expected, value, false, __ATOMIC_SEQ_CST,
                                                 __ATOMIC_SEQ_CST);
        } else {
            uint32_t expected = (uint32_t)hart->reserved_value;

            stored = __atomic_compare_exchange_n((uint32_t *)(void *)host, &expected, (uint32_t)value, false,
                                                 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        }
    }
    hart->x[u->rd] = !stored;
    hart->x[0] = 0;
    return true;
}

#define LR_SC(name, function, bytes)                                                                                   \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        if (!function(v, u, bytes))                                                                                    \
            return NULL;                                                                                               \
        NEXT;                                                                                                          \
    }

LR_SC(lr_w, load_reserved, 4)
LR_SC(lr_d, load_reserved, 8)
LR_SC(sc_w, store_conditional, 4)
LR_SC(sc_d, store_conditional, 8)

/* One AMO: `apply` is an expression over host pointer p and operand b that yields the old value. */
#define AMO_SIZE(name, type, utype, bytes, apply)                                                                      \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        __typeof__(utype) *p = (void *)amo_host(v, u, bytes);                                                          \
        utype b = (utype)XR(rs2);                                                                                      \
        if (!p)                                                                                                        \
            return NULL;                                                                                               \
        v->hart.x[u->rd] = (uint64_t)(int64_t)(type)(apply);                                                           \
        v->hart.x[0] = 0;                                                                                              \
        NEXT;                                                                                                          \
    }
#define AMO(name, apply)                                                                                               \
    AMO_SIZE(name##_w, int32_t, uint32_t, 4, apply)                                                                    \
    AMO_SIZE(name##_d, int64_t, uint64_t, 8, apply)

AMO(amoswap, __atomic_exchange_n(p, b, __ATOMIC_SEQ_CST))
AMO(amoadd, __atomic_fetch_add(p, b, __ATOMIC_SEQ_CST))
AMO(amoand, __atomic_fetch_and(p, b, __ATOMIC_SEQ_CST))
AMO(amoor, __atomic_fetch_or(p, b, __ATOMIC_SEQ_CST))
AMO(amoxor, __atomic_fetch_xor(p, b, __ATOMIC_SEQ_CST))

/* The host has no atomic minimum: swap in the chosen one until nobody interferes. */
#define CHOOSER(name, type, utype, comparison)                                                                         \
    static utype name(__typeof__(utype) *p, utype b)                                                                   \
    {                                                                                                                  \
        utype old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                              \
        while (!__atomic_compare_exchange_n(p, &old, (type)old comparison(type) b ? old : b, true, __ATOMIC_SEQ_CST,   \
                                            __ATOMIC_RELAXED))                                                         \
            continue;                                                                                                  \
        return old;                                                                                                    \
    }
#define CHOOSERS(name, comparison)                                                                                     \
    CHOOSER(name##_s32, int32_t, uint32_t, comparison)                                                                 \
    CHOOSER(name##_s64, int64_t, uint64_t, comparison)                                                                 \
    CHOOSER(name##_u32, uint32_t, uint32_t, comparison)                                                                \
    CHOOSER(name##_u64, uint64_t, uint64_t, comparison)

CHOOSERS(least, <)
CHOOSERS(greatest, >)

AMO_SIZE(amomin_w, int32_t, uint32_t, 4, least_s32(p, b))
AMO_SIZE(amomax_w, int32_t, uint32_t, 4, greatest_s32(p, b))
AMO_SIZE(amominu_w, int32_t, uint32_t, 4, least_u32(p, b))
AMO_SIZE(amomaxu_w, int32_t, uint32_t, 4, greatest_u32(p, b))
AMO_SIZE(amomin_d, int64_t, uint64_t, 8, least_s64(p, b))
AMO_SIZE(amomax_d, int64_t, uint64_t, 8, greatest_s64(p, b))
AMO_SIZE(amominu_d, int64_t, uint64_t, 8, least_u64(p, b))
AMO_SIZE(amomaxu_d, int64_t, uint64_t, 8, greatest_u64(p, b))

/* --- fences ---------------------------------------------------------------------------------------------- */

/* The host keeps every order but store before load. Device accesses are done when their instruction ends. */
OP(fence)
{
    const uint32_t pred_write = 1u << 24, succ_read = 1u << 21, tso = 8;

    if ((u->raw & pred_write) && (u->raw & succ_read) && u->raw >> 28 != tso)
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
#if defined(__x86_64__)
    if (u->raw == 0x0100000f) /* pause */
        __builtin_ia32_pause();
#endif
    NEXT;
}

/* --- cache blocks ---------------------------------------------------------------------------------------- */

static bool block_zero(struct vcpu *v, struct uop *u)
{
    struct reach at;
    uint64_t va = XR(rs1) & ~(uint64_t)(CACHE_BLOCK_BYTES - 1);
    uint64_t cause = engine_reach(v, va, CACHE_BLOCK_BYTES, MMU_WRITE, &at);

    if (!cause && !at.host)
        cause = CAUSE_STORE_ACCESS;
    if (cause) {
        engine_trap(v, u, cause, XR(rs1));
        return false;
    }
    for (unsigned i = 0; i < CACHE_BLOCK_BYTES; i += 8)
        guest_store_64(at.host + i, 0);
    return true;
}

/* Memory is coherent, so there is nothing to do but fault: the block must be readable (or writable, which implies it). */
static bool block_touch(struct vcpu *v, struct uop *u)
{
    struct reach at;
    uint64_t va = XR(rs1) & ~(uint64_t)(CACHE_BLOCK_BYTES - 1);
    uint64_t cause = engine_reach(v, va, CACHE_BLOCK_BYTES, MMU_READ, &at);

    if (!cause)
        return true;
    engine_trap(v, u, cause == CAUSE_LOAD_PAGE ? CAUSE_STORE_PAGE : CAUSE_STORE_ACCESS, XR(rs1));
    return false;
}

static bool may_inval(struct vcpu *v)
{
    bool acts_as_flush = false;

    return hart_may_cbo_inval(&v->hart, &acts_as_flush);
}

#define CBO(name, allowed, function)                                                                                   \
    OP(name)                                                                                                           \
    {                                                                                                                  \
        if (!(allowed))                                                                                                \
            return engine_illegal(v, u);                                                                               \
        if (!function(v, u))                                                                                           \
            return NULL;                                                                                               \
        NEXT;                                                                                                          \
    }

CBO(cbo_zero, hart_may_cbo_zero(&v->hart), block_zero)
CBO(cbo_clean, hart_may_cbo_clean(&v->hart), block_touch)
CBO(cbo_flush, hart_may_cbo_clean(&v->hart), block_touch)
CBO(cbo_inval, may_inval(v), block_touch)
