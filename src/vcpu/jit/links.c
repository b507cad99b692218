/* Jumps that lead out of their region, made direct.
 *
 * Inside a page a link is the jump itself, patched: code is kept by physical address, so whoever runs this code has
 * the target behind it. Between pages that depends on who runs it: whether the page there is the one that the target was
 * translated from. So such a link goes by a few instructions of its own, made here, that ask the hart's TLB where it has
 * that page (tlb.code_page); when it is elsewhere or not known, the hart's table of jumps is asked as for any jump.
 * They never change once made, so a jump is linked by one aligned store, even while harts run it. */
#include <assert.h>

#include "vcpu/jit/jit_priv.h"
#include "vcpu/jit/perf.h"

static struct translation *at_address(struct jit *jit, const void *address)
{
    unsigned low = 0, high = jit->translations;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if ((const uint8_t *)jit->by_address[middle]->end <= (const uint8_t *)address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < jit->translations ? jit->by_address[low] : NULL;
}

/* From a page to the one `distance` away, if the target's page is there. The address comes out of the TLB and not from
 * page_va: what was stored there a few instructions ago is slow to load. Around a loop there is a way back, and there
 * the hart can be stopped. */
static void pass(struct emit *e, const struct code *code, const struct translation *to, int32_t distance)
{
    emit_mov(e, RAX, op_mem(GEN_TLB, gen_code_page(to->page)));
    emit_lea(e, RCX, op_mem(RAX, -distance - 1));
    emit_alu(e, ALU_CMP, RCX, GEN_FIELD(page_va));
    uint8_t *elsewhere = emit_jcc(e, CC_NE);
    emit_alu_imm(e, ALU_SUB, op_reg(RAX), 1);
    emit_store(e, GEN_FIELD(page_va), RAX);
    if (distance < 0) {
        emit_op_imm(e, 0x80, 7, GEN_FIELD(exit_request), 0, 1); /* cmp byte, 0 */
        uint8_t *stay = emit_jcc_short(e, CC_E);
        emit_mov_imm(e, RCX, (int64_t)(to->gpa & (PAGE_BYTES - 1)));
        emit_jmp_to(e, code->thunks.exit_at);
        emit_bind_short(e, stay);
    }
    emit_jmp_to(e, code_writable(code, to->near_entry));
    emit_bind(e, elsewhere, e->at);
}

/* Returns where it runs. There is room. */
static const void *make_passage(struct vcpu *v, const struct translation *to, int32_t distance)
{
    struct code *code = &v->jit->code;
    struct emit e = { .at = code->writable + code->used, .end = code->writable + code->bytes };
    const void *first = code_executable(code, e.at);

    if (to->page < TLB_CODE_PAGES)
        pass(&e, code, to, distance);
    emit_mov_imm(&e, RCX, distance + (int64_t)(to->gpa & (PAGE_BYTES - 1)));
    emit_jmp_to(&e, code->thunks.far_at);
    assert(!e.full);
    size_t bytes = (size_t)(e.at - code->writable) - code->used;
    code->used += bytes;
    if (perf_on())
        perf_code(first, bytes, to->gpa, v->hart.pc);
    return first;
}

static bool link_locked(struct vcpu *v, const struct translation *to)
{
    struct jit *jit = v->jit;
    const struct translation *from = at_address(jit, v->jit_site);
    int64_t distance = (int64_t)((v->hart.pc & TLB_PAGE_MASK) - v->page_va);

    if (!from || jit->flushing || to->dead)
        return true;
    if (distance == 0 && (from->gpa ^ to->gpa) < PAGE_BYTES) { /* else the page was mapped anew, unfenced */
        code_patch_jump(&jit->code, v->jit_site, to->near_entry);
        jit->stats.links++;
    } else if (distance != 0) {
        assert(distance == (int32_t)distance); /* no jump that is linked goes farther than 1 MiB */
        if (!jit_make_room(jit))
            return false;
        code_patch_jump(&jit->code, v->jit_site, make_passage(v, to, (int32_t)distance));
        jit->stats.links++;
        jit->stats.passages++;
    }
    return true;
}

void links_make(struct vcpu *v)
{
    struct jit *jit = v->jit;
    const struct translation *to = jit_lookup(v, false);

    if (!to)
        return;
    lock(&jit->lock);
    bool room = link_locked(v, to);
    unlock(&jit->lock);
    if (!room)
        jit_kick_all(jit);
}
