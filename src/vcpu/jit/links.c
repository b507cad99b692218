/* Jumps that lead out of their region, made direct by patching them while harts may run them.
 *
 * Inside a page a link is a jump and no more: code is kept by physical address, so whoever runs it has the target beside
 * it. Between pages that depends on who runs it: is the page there the one that the target was translated from? So such a
 * link asks the hart's TLB where it has the target's page (tlb.code_page), and if that is not where the jump leads, the
 * hart's table of jumps decides, as for any jump. */
#include <assert.h>
#include <string.h>

#include "vcpu/jit/jit_priv.h"

enum { LINK_UNMADE = 0xe9 }; /* jmp: the first byte of a head */

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

static void store_head(const struct code *code, const void *head, const uint8_t bytes[LINK_HEAD_BYTES])
{
    uint64_t word;

    assert((uintptr_t)head % LINK_HEAD_BYTES == 0);
    memcpy(&word, bytes, sizeof(word));
    __atomic_store_n((uint64_t *)(void *)code_writable(code, head), word, __ATOMIC_RELEASE);
}

/* Once: what the head asks for belongs to where the tail leads. First the tail, to which nobody comes yet. */
static void link_across(struct code *code, const void *head, const struct translation *to)
{
    const uint8_t *at = code_writable(code, head);
    uint8_t bytes[64] = { 0 };
    struct emit e = { .at = bytes, .end = bytes + sizeof(bytes) };

    if (at[0] != LINK_UNMADE)
        return;
    if (to->page < TLB_CODE_PAGES) {
        code_patch_jump(code, (const uint8_t *)head + at[LINK_TAIL], to->near_entry);
        emit_mov(&e, RAX, op_mem(GEN_TLB, gen_code_page(to->page)));
    } else {
        emit_mov_imm(&e, RAX, 0);
        emit_u8(&e, 0xeb); /* jmp */
        emit_u8(&e, at[LINK_FAR] - (unsigned)(e.at + 1 - bytes));
    }
    if (e.at < bytes + LINK_HEAD_BYTES)
        emit_nop(&e, (unsigned)(bytes + LINK_HEAD_BYTES - e.at));
    assert(!e.full && e.at == bytes + LINK_HEAD_BYTES);
    store_head(code, head, bytes);
}

static void link_locked(struct vcpu *v, const struct translation *to)
{
    struct jit *jit = v->jit;
    const struct translation *from = at_address(jit, v->jit_site);
    bool inside = (v->hart.pc & TLB_PAGE_MASK) == v->page_va;

    if (!from || jit->flushing || to->dead)
        return;
    if (!inside)
        link_across(&jit->code, v->jit_site, to);
    else if ((from->gpa ^ to->gpa) < PAGE_BYTES) /* else the page was mapped anew, unfenced */
        code_patch_jump(&jit->code, v->jit_site, to->near_entry);
    jit->stats.links++;
    jit->stats.crossing += !inside;
}

void links_make(struct vcpu *v)
{
    const struct translation *to = jit_lookup(v, false);

    if (!to)
        return;
    lock(&v->jit->lock);
    link_locked(v, to);
    unlock(&v->jit->lock);
}
