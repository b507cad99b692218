/* Choosing among a vCPU's TLBs, and forgetting: sfence.vma, changes of PMP, code that is gone, dirty harvests. */
#include "vcpu/translate.h"

#include <string.h>

#include "vcpu/engine.h"

static uint64_t asid_of(uint64_t satp)
{
    return satp >> 44 & 0xffff;
}

/* --- forgetting ------------------------------------------------------------------------------------------ */

/* No entry of the interpreter's jump table of this TLB is valid any more. */
static void new_mappings(struct vcpu *v, unsigned index)
{
    struct translate *t = &v->translate;

    t->mappings[index] = ++t->last_mappings;
    if (index == t->chosen)
        v->mappings = t->mappings[index];
}

/* The TLB of the space before, if what it holds of the kernel may be taken over into this one; else NULL. */
static const struct tlb *heritage(const struct vcpu *v, unsigned index)
{
    const struct translate *t = &v->translate;
    unsigned mode = index % TLB_SPACE_MODES, from = t->space_before * TLB_SPACE_MODES + mode;

    if (index >= TLB_SPACES * TLB_SPACE_MODES || mode == TLB_U || from == index || t->state[from] != TLB_READY)
        return NULL;
    uint64_t ours = t->satp[index / TLB_SPACE_MODES] >> 60;
    bool alike = ours != 0 && t->satp[t->space_before] >> 60 == ours;
    return alike && v->tlbs[from].has_global ? &v->tlbs[from] : NULL;
}

/* Bring a TLB up to date: before it is chosen, and the chosen one at once. */
static void make_ready(struct vcpu *v, unsigned index)
{
    struct translate *t = &v->translate;

    const struct tlb *from = t->state[index] <= TLB_STALE ? heritage(v, index) : NULL;

    if (from)
        tlb_inherit(&v->tlbs[index], from);
    else if (t->state[index] == TLB_UNBORN)
        tlb_init(&v->tlbs[index]);
    else if (t->state[index] == TLB_STALE)
        tlb_flush(&v->tlbs[index]);
    if (t->state[index] == TLB_UNARMED)
        tlb_rearm(&v->tlbs[index], dirty_tracking(v->dirty), v->dirty);
    else
        new_mappings(v, index);
    t->state[index] = TLB_READY;
}

static void make_stale(struct vcpu *v, unsigned index)
{
    if (v->translate.state[index] != TLB_UNBORN)
        v->translate.state[index] = TLB_STALE;
}

static bool holds_entries(const struct vcpu *v, unsigned index)
{
    return v->translate.state[index] >= TLB_UNARMED;
}

void engine_flush(struct vcpu *v)
{
    mmu_pmp_load(&v->pmp, v->hart.pmpcfg, v->hart.pmpaddr);
    for (unsigned i = 0; i < TLB_COUNT; i++)
        make_stale(v, i);
    make_ready(v, v->translate.chosen);
}

static void fence_one(struct vcpu *v, unsigned index, const struct tlb_fence *fence)
{
    if (!holds_entries(v, index))
        return;
    struct tlb *tlb = &v->tlbs[index];
    if (index != v->translate.chosen && !fence->has_va && !(fence->keep_global && tlb->has_global))
        make_stale(v, index);
    else if (tlb_fence(tlb, fence))
        new_mappings(v, index);
}

void engine_fence(struct vcpu *v, bool has_va, uint64_t va, bool has_asid, uint64_t asid)
{
    struct translate *t = &v->translate;
    struct tlb_fence fence = { .has_va = has_va, .va = va, .keep_global = has_asid };

    asid &= 0xffff;
    for (unsigned space = 0; space < TLB_SPACES; space++) {
        if (!t->used[space] || (has_asid && asid_of(t->satp[space]) != asid))
            continue;
        for (unsigned mode = 0; mode < TLB_SPACE_MODES; mode++)
            fence_one(v, space * TLB_SPACE_MODES + mode, &fence);
    }
    if (t->chosen == TLB_OTHER && !(has_asid && asid_of(v->hart.satp) != asid))
        fence_one(v, TLB_OTHER, &fence);
}

void engine_drop_blocks(struct vcpu *v)
{
    for (unsigned i = 0; i < TLB_COUNT; i++)
        new_mappings(v, i);
}

void engine_drop_code_jumps(struct vcpu *v)
{
    for (unsigned i = 0; i < TLB_COUNT; i++)
        if (v->translate.state[i] != TLB_UNBORN)
            tlb_drop_jumps(&v->tlbs[i]);
}

void engine_note_jump(struct vcpu *v, uint64_t va)
{
    tlb_note_jump_page(v->tlb, va);
}

void engine_rearm(struct vcpu *v)
{
    struct translate *t = &v->translate;

    for (unsigned i = 0; i < TLB_COUNT; i++)
        if (holds_entries(v, i))
            t->state[i] = TLB_UNARMED;
    if (t->state[t->chosen] == TLB_UNARMED)
        make_ready(v, t->chosen);
}

/* --- choosing -------------------------------------------------------------------------------------------- */

/* The space that was least recently chosen makes room. Without translation the rest of satp says nothing. */
void engine_select_space(struct vcpu *v)
{
    struct translate *t = &v->translate;
    uint64_t satp = v->hart.satp >> 60 ? v->hart.satp : 0;
    unsigned space = 0, oldest = 0;

    for (; space < TLB_SPACES && !(t->used[space] && t->satp[space] == satp); space++)
        if (t->used[space] < t->used[oldest])
            oldest = space;
    if (space == TLB_SPACES) {
        space = oldest;
        for (unsigned mode = 0; mode < TLB_SPACE_MODES; mode++)
            make_stale(v, space * TLB_SPACE_MODES + mode);
        t->satp[space] = satp;
    }
    t->used[space] = ++t->uses;
    if (space != t->space)
        t->space_before = t->space;
    t->space = space;
}

static void choose(struct vcpu *v, unsigned index)
{
    struct translate *t = &v->translate;

    if (t->state[index] != TLB_READY)
        make_ready(v, index);
    t->chosen = index;
    v->tlb = &v->tlbs[index];
    v->jump = &v->jumps[(size_t)index * JUMP_ENTRIES];
    v->mappings = t->mappings[index];
}

void engine_select_mode(struct vcpu *v)
{
    const struct hart *hart = &v->hart;
    bool mprv = hart->priv == PRIV_M && (hart->mstatus & MSTATUS_MPRV);
    uint8_t priv = mprv ? (uint8_t)((hart->mstatus & MSTATUS_MPP) >> 11) : hart->priv;
    bool sum = hart->mstatus & MSTATUS_SUM, mxr = hart->mstatus & MSTATUS_MXR;
    enum tlb_mode mode = priv == PRIV_U ? TLB_U : sum ? TLB_S_SUM : TLB_S;

    v->code = (struct mmu_context){
        .satp = hart->satp,
        .priv = hart->priv,
        .sum = sum,
        .mxr = mxr,
        .pmp = &v->pmp,
        .adue = hart->menvcfg & MENVCFG_ADUE,
        .pbmte = hart->menvcfg & MENVCFG_PBMTE,
    };
    v->data = v->code;
    v->data.priv = priv;
    if (priv == PRIV_M) {
        choose(v, TLB_M);
    } else if (mprv || mxr) { /* rare, and never shares what it finds */
        make_stale(v, TLB_OTHER);
        choose(v, TLB_OTHER);
    } else {
        choose(v, v->translate.space * TLB_SPACE_MODES + mode);
    }
}
