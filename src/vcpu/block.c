#include "vcpu/block.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "vcpu/engine.h"

enum { SLOT_BYTES = 32 };
_Static_assert(sizeof(struct uop) == SLOT_BYTES && sizeof(struct block) == SLOT_BYTES, "arena slots");

struct block block_dead = { .generation = BLOCK_DEAD };

static void *map_zero(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int block_cache_init(struct block_cache *cache, struct err *err)
{
    *cache = (struct block_cache){ .next_slot = 1, .generation = 1 };
    cache->arena = map_zero((uint64_t)BLOCK_ARENA_SLOTS * SLOT_BYTES);
    cache->bucket = map_zero(BLOCK_BUCKETS * sizeof(*cache->bucket));
    if (!cache->arena || !cache->bucket) {
        int code = -errno;

        block_cache_free(cache);
        return err_set_errno(err, code, "cannot reserve memory for decoded code");
    }
    return 0;
}

void block_cache_free(struct block_cache *cache)
{
    if (cache->arena)
        munmap(cache->arena, (uint64_t)BLOCK_ARENA_SLOTS * SLOT_BYTES);
    if (cache->bucket)
        munmap(cache->bucket, BLOCK_BUCKETS * sizeof(*cache->bucket));
    cache->arena = NULL;
    cache->bucket = NULL;
}

void block_cache_empty(struct block_cache *cache)
{
    memset(cache->bucket, 0, BLOCK_BUCKETS * sizeof(*cache->bucket));
    cache->next_slot = 1;
    cache->emptied++;
}

/* --- translation ---------------------------------------------------------------------------------------- */

struct builder {
    struct uop uop[BLOCK_INSNS_MAX + 2];
    unsigned uops, insns, side_exits;
    bool ended;
};

static void set_op(struct uop *u, enum op op)
{
    u->fn = engine_handlers[op];
}

static bool is_op(const struct uop *u, enum op op)
{
    return u->fn == engine_handlers[op];
}

static bool in_page(int64_t disp)
{
    return disp >= 0 && disp < PAGE_BYTES;
}

/* An addi (a mv or li in disguise does not count) whose result the next instruction finds in its register. */
static bool fuse_branch(struct uop *last, const struct insn *insn, int64_t disp)
{
    static const struct {
        enum op first, branch, fused;
    } pair[] = {
        { OP_addi, OP_beq, OP_PSEUDO_addi_beq },   { OP_addi, OP_bne, OP_PSEUDO_addi_bne },
        { OP_addi, OP_blt, OP_PSEUDO_addi_blt },   { OP_addi, OP_bge, OP_PSEUDO_addi_bge },
        { OP_addi, OP_bltu, OP_PSEUDO_addi_bltu }, { OP_addi, OP_bgeu, OP_PSEUDO_addi_bgeu },
        { OP_andi, OP_beq, OP_PSEUDO_andi_beqz },  { OP_andi, OP_bne, OP_PSEUDO_andi_bnez },
    };

    for (unsigned i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
        if (!is_op(last, pair[i].first) || insn->op != pair[i].branch)
            continue;
        if (pair[i].first == OP_andi && (insn->rs1 != last->rd || insn->rs2 != 0))
            continue;
        last->raw = (uint32_t)last->imm;
        last->rs2 = insn->rs1;
        last->rs3 = insn->rs2;
        last->disp = (int32_t)disp;
        last->link = &block_dead;
        set_op(last, pair[i].fused);
        return true;
    }
    return false;
}

/* Second half of a constant or an address that was begun in the same register. */
static bool fuse_address(struct uop *last, const struct insn *insn)
{
    bool same = insn->rs1 == last->rd && insn->rd == last->rd;

    if (is_op(last, OP_PSEUDO_li) && same && (insn->op == OP_addi || insn->op == OP_addiw)) {
        last->imm = insn->op == OP_addi ? last->imm + insn->imm : (int32_t)(last->imm + insn->imm);
        return true;
    }
    if (!is_op(last, OP_auipc) || insn->rs1 != last->rd)
        return false;
    if (insn->op == OP_addi && same) {
        last->imm += insn->imm;
        return true;
    }
    if ((insn->op == OP_ld || insn->op == OP_lw) && same) {
        last->disp = (int32_t)insn->imm;
        set_op(last, insn->op == OP_ld ? OP_PSEUDO_la_ld : OP_PSEUDO_la_lw);
        return true;
    }
    if (insn->op == OP_jalr) {
        last->disp = (int32_t)insn->imm;
        last->rs1 = last->rd;
        last->rd = insn->rd;
        set_op(last, OP_PSEUDO_call_far);
        return true;
    }
    return false;
}

static bool fuse_alu(struct uop *last, const struct insn *insn)
{
    bool same = insn->rs1 == last->rd && insn->rd == last->rd;

    if (is_op(last, OP_slli) && same && (insn->op == OP_srli || insn->op == OP_srai)) {
        last->disp = (int32_t)insn->imm;
        set_op(last, insn->op == OP_srli ? OP_PSEUDO_slli_srli : OP_PSEUDO_slli_srai);
        return true;
    }
    if (is_op(last, OP_addi) && insn->op == OP_addi && insn->rd != 0 && insn->rs1 != 0) {
        last->disp = (int32_t)insn->imm;
        last->rs2 = insn->rd;
        last->rs3 = insn->rs1;
        set_op(last, OP_PSEUDO_addi_addi);
        return true;
    }
    return false;
}

/* Make the pair one uop. It keeps the second one's place (offset, count), which is where it may trap or branch. */
static bool fuse(struct builder *b, const struct insn *insn, uint16_t off)
{
    if (b->uops == 0 || insn->op >= OP_ENCODED || (insn->rd == 0 && decode_ops[insn->op].kind == KIND_ALU))
        return false;
    struct uop *last = &b->uop[b->uops - 1];
    if (!fuse_address(last, insn) && !fuse_alu(last, insn) && !fuse_branch(last, insn, off + insn->imm))
        return false;
    last->off = off;
    last->length = insn->length;
    last->left = (uint8_t)b->insns;
    return true;
}

/* The handler for an instruction with these very operands. */
static enum op specialise(const struct insn *insn, struct uop *u)
{
    switch (insn->op) {
    case OP_lui: return OP_PSEUDO_li;
    case OP_auipc: u->imm = insn->imm + u->off; return OP_auipc;
    case OP_addi:
        if (insn->rs1 == 0)
            return OP_PSEUDO_li;
        return insn->imm == 0 ? OP_PSEUDO_mv : OP_addi;
    case OP_addiw: return insn->imm == 0 ? OP_PSEUDO_sext_w : OP_addiw;
    case OP_add:
        if (insn->rs1 != 0 && insn->rs2 != 0)
            return OP_add;
        u->rs1 = insn->rs1 | insn->rs2;
        return OP_PSEUDO_mv;
    case OP_jal:
        if (!in_page(u->disp))
            return OP_jal;
        return insn->rd ? OP_PSEUDO_jal_near : OP_PSEUDO_j;
    case OP_jalr: return insn->rd ? OP_jalr : OP_PSEUDO_jr;
    case OP_beq: return insn->rs2 ? OP_beq : OP_PSEUDO_beqz;
    case OP_bne: return insn->rs2 ? OP_bne : OP_PSEUDO_bnez;
    case OP_blt: return insn->rs2 ? OP_blt : OP_PSEUDO_bltz;
    case OP_bge: return insn->rs2 ? OP_bge : OP_PSEUDO_bgez;
    default: return insn->op;
    }
}

static void emit(struct builder *b, const struct insn *insn, uint16_t off)
{
    enum op_kind kind = insn->op < OP_ENCODED ? decode_ops[insn->op].kind : KIND_END;
    bool fused = fuse(b, insn, off);

    if (!fused) {
        struct uop *u = &b->uop[b->uops++];

        *u = (struct uop){ .off = off,
                           .length = insn->length,
                           .left = (uint8_t)b->insns,
                           .raw = insn->raw,
                           .rd = insn->rd,
                           .rs1 = insn->rs1,
                           .rs2 = insn->rs2,
                           .rs3 = insn->rs3,
                           .imm = insn->imm };
        if (kind == KIND_BRANCH || insn->op == OP_jal) {
            u->link = &block_dead;
            u->disp = (int32_t)(off + insn->imm);
        }
        if (kind == KIND_ALU && insn->rd == 0) {
            set_op(u, OP_PSEUDO_nop);
        } else if (kind == KIND_LOAD && insn->rd == 0) {
            u->rs3 = (uint8_t)(1u << (insn->rm & 3)); /* funct3 says log2 of the size */
            set_op(u, OP_PSEUDO_load_x0);
        } else {
            set_op(u, specialise(insn, u));
        }
    }
    b->insns++;
    if (kind == KIND_BRANCH) /* backward: a loop, rarely left */
        b->ended = insn->imm < 0 || ++b->side_exits > BLOCK_SIDE_EXITS_MAX;
    else if (kind == KIND_JUMP || kind == KIND_END)
        b->ended = true;
}

static void emit_goto(struct builder *b, uint16_t next_off)
{
    struct uop *u = &b->uop[b->uops++];

    *u = (struct uop){ .disp = next_off, .off = next_off, .left = (uint8_t)b->insns, .link = &block_dead };
    set_op(u, next_off < PAGE_BYTES ? OP_PSEUDO_goto_next : OP_PSEUDO_goto_far);
}

/* While building, `left` holds the number of instructions before this one. */
static void finish(struct builder *b, struct block *block)
{
    block->count = (uint16_t)b->insns;
    block->uops = (uint16_t)b->uops;
    for (unsigned i = 0; i < b->uops; i++) {
        b->uop[i].left = (uint8_t)(b->insns - b->uop[i].left);
        block->uop[i] = b->uop[i];
    }
}

static inline uint16_t load_half(const uint8_t *host)
{
    return __atomic_load_n((const uint16_t *)(const void *)host, __ATOMIC_RELAXED); /* harts may be writing it */
}

static bool ends_in_goto(const struct builder *b)
{
    /* A jump or a trap goes where it goes; everything else falls through. */
    const struct uop *last = &b->uop[b->uops - 1];

    return !(is_op(last, OP_jal) || is_op(last, OP_PSEUDO_jal_near) || is_op(last, OP_PSEUDO_j) ||
             is_op(last, OP_jalr) || is_op(last, OP_PSEUDO_jr) || is_op(last, OP_PSEUDO_call_far) ||
             is_op(last, OP_PSEUDO_illegal));
}

/* Decode from `host` (page offset off) until the block ends; returns bytes used, 0 when not one instruction fits. */
static unsigned decode_block(struct builder *b, const uint8_t *host, unsigned off, uint16_t *source)
{
    unsigned bytes = 0, room = PAGE_BYTES - off;

    while (!b->ended && b->insns < BLOCK_INSNS_MAX && room - bytes >= 2) {
        uint32_t raw = load_half(host + bytes);
        bool is_long = insn_is_long((uint16_t)raw);

        if (is_long && room - bytes < 4)
            break;
        if (is_long)
            raw |= (uint32_t)load_half(host + bytes + 2) << 16;
        struct insn insn = decode(raw);
        source[bytes / 2] = (uint16_t)raw;
        if (is_long)
            source[bytes / 2 + 1] = (uint16_t)(raw >> 16);
        emit(b, &insn, (uint16_t)(off + bytes));
        bytes += insn.length;
    }
    if (b->insns > 0 && ends_in_goto(b))
        emit_goto(b, (uint16_t)(off + bytes));
    return bytes;
}

static void emit_heat(struct builder *b, unsigned off, unsigned heat)
{
    struct uop *u = &b->uop[b->uops++];

    *u = (struct uop){ .disp = (int32_t)heat, .off = (uint16_t)off };
    set_op(u, OP_PSEUDO_heat);
}

void block_cool(const struct block_cache *cache, struct block *block)
{
    if (is_op(&block->uop[0], OP_PSEUDO_heat))
        block->uop[0].disp = (int32_t)cache->heat;
}

struct uop *block_first(struct block *block)
{
    return is_op(&block->uop[0], OP_PSEUDO_heat) ? &block->uop[1] : &block->uop[0];
}

static unsigned bucket_of(uint64_t gpa)
{
    return (unsigned)((gpa >> 1) * UINT64_C(0x9e3779b97f4a7c15) >> 40) & (BLOCK_BUCKETS - 1);
}

static uint16_t *source_of(struct block *block)
{
    return (uint16_t *)(void *)&block->uop[block->uops];
}

static struct block *make(struct block_cache *cache, uint64_t gpa, const uint8_t *host)
{
    uint16_t source[BLOCK_INSNS_MAX * 2];
    struct builder b;

    b.uops = b.insns = b.side_exits = 0;
    b.ended = false;
    if (cache->heat)
        emit_heat(&b, gpa & (PAGE_BYTES - 1), cache->heat);
    unsigned bytes = decode_block(&b, host, gpa & (PAGE_BYTES - 1), source);
    if (bytes == 0)
        return NULL;

    unsigned slots = 1 + b.uops + (bytes + SLOT_BYTES - 1) / SLOT_BYTES;
    if (cache->next_slot + slots > BLOCK_ARENA_SLOTS)
        block_cache_empty(cache);
    struct block *block = block_at_slot(cache, cache->next_slot);
    uint32_t *bucket = &cache->bucket[bucket_of(gpa)];

    *block =
        (struct block){ .gpa = gpa, .generation = cache->generation, .hash_next = *bucket, .bytes = (uint16_t)bytes };
    finish(&b, block);
    memcpy(source_of(block), source, bytes);
    *bucket = cache->next_slot;
    cache->next_slot += slots;
    cache->made++;
    return block;
}

static bool unchanged(struct block *block, const uint8_t *host)
{
    const uint16_t *source = source_of(block);

    for (unsigned i = 0; i < block->bytes / 2u; i++)
        if (source[i] != load_half(host + 2 * (size_t)i))
            return false;
    return true;
}

struct block *block_get(struct block_cache *cache, uint64_t gpa, const uint8_t *host)
{
    uint32_t *from = &cache->bucket[bucket_of(gpa)];

    for (uint32_t slot = *from; slot; slot = *from) {
        struct block *block = block_at_slot(cache, slot);

        if (block->gpa != gpa) {
            from = &block->hash_next;
            continue;
        }
        if (block->generation == cache->generation)
            return block;
        if (unchanged(block, host)) {
            block->generation = cache->generation;
            cache->reverified++;
            return block;
        }
        block->generation = BLOCK_DEAD; /* links to it find out by themselves */
        *from = block->hash_next;
        cache->changed++;
        break;
    }
    return make(cache, gpa, host);
}

void block_make_single(struct block *block, uint32_t raw, uint16_t off)
{
    struct insn insn = decode(raw);
    struct builder b;

    b.uops = b.insns = b.side_exits = 0;
    b.ended = false;
    emit(&b, &insn, off);
    if (ends_in_goto(&b)) {
        emit_goto(&b, (uint16_t)(off + insn.length));
        set_op(&b.uop[b.uops - 1], OP_PSEUDO_goto_far); /* nothing is linked to or from here */
    }
    *block = (struct block){ .generation = BLOCK_DEAD };
    finish(&b, block);
}
