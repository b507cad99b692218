/* Single promises of the code generator that random programs do not reach, or not often. */
#include "tests/unit/vcpu/rig.h"
#include "vcpu/jit/jit_priv.h"

enum { SSTATUS = 0x100, FS_INITIAL = 1 << 13, TURNS = 20 };
enum { BUFFER_BYTES = 1 << 20, LEAD = 24 };

/* In a loop, and of registers that have no host register between regions: ten are exchanged. Then all copies of f
 * registers are in use, and nobody knows whether floating point is ready. */
static void put_lead(uint32_t *word)
{
    static const uint8_t own[] = { t0, t1, t2, a6, a7, s2, s3, s4, s5, s6 };
    unsigned at = 0;

    for (unsigned i = 0; i < 10; i++)
        word[at++] = as(OP_xor, own[i], own[(i + 1) % 10], own[i]);
    for (; at < LEAD - 1; at++)
        word[at] = as(OP_fmv_d_x, at, t0, 0);
    word[at] = as(OP_csrrs, zero, t0, SSTATUS);
}

/* The piece is repeated to the end of the region, but for the branch back to its beginning. */
static size_t host_bytes(struct gen *g, const struct code *code, const uint32_t *piece, unsigned length)
{
    static _Alignas(8) uint32_t page[1024];

    put_lead(page);
    for (unsigned i = LEAD; i < GEN_INSNS_MAX - 1; i++)
        page[i] = piece[(i - LEAD) % length];
    page[GEN_INSNS_MAX - 1] = as(OP_bne, t0, zero, -4 * (GEN_INSNS_MAX - 1));
    g->code = code;
    g->e = (struct emit){ .at = code->writable + code->used, .end = code->writable + code->bytes };
    uint8_t *first = g->e.at;
    assert_true(gen_decode(g, (const uint8_t *)page, 0));
    assert_int_equal(g->count, GEN_INSNS_MAX);
    assert_true(gen_region(g));
    return (size_t)(g->e.at - first);
}

static void the_longest_region_fits(void **state)
{
    const uint32_t pieces[][2] = {
        { as(OP_sd, t0, s2, 8), as(OP_sd, t1, s3, 8) },
        { as(OP_sd, t0, s7, 8), as(OP_sd, t1, s8, 8) },
        { as(OP_sd, t0, s2, 8), as(OP_sd, t1, s2, 16) },
        { as(OP_fsd, 14, s2, 8), as(OP_fsd, 15, s7, 8) },
        { as(OP_fsw, 14, s2, 8), as(OP_fsw, 1, s3, 8) },
        { as(OP_fld, 14, s2, 8), as(OP_flw, 15, s7, 8) },
        { as(OP_fmv_x_d, s11, 14, 0), as(OP_fmv_x_w, t3, 15, 0) },
        { as(OP_fmadd_s, 14, 15, 16) | 17u << 27 | 1 << 12, as(OP_fmadd_s, 18, 19, 20) | 21u << 27 },
        { as(OP_fcvt_lu_s, t3, 14, 0), as(OP_fcvt_s_lu, 15, t3, 0) },
        { as(OP_amoadd_d, t3, s2, t4), as(OP_amomax_d, t3, s3, t4) },
        { as(OP_lr_d, t3, s2, 0), as(OP_sc_d, t3, s3, t4) },
        { as(OP_csrrw, t3, t4, 0x100), as(OP_csrrs, t3, t4, 0x100) },
        { as(OP_csrrs, t3, zero, 3), as(OP_csrrw, t3, t4, 1) },
        { as(OP_csrrs, t3, zero, 0xc00), as(OP_cbo_zero, 0, s2, 0) },
        { as(OP_csrrs, t3, zero, 3), as(OP_fsd, 14, s2, 8) },
        { as(OP_beq, t3, t4, 0x800), as(OP_bne, t3, t4, -0x800) },
        { as(OP_beq, t3, t4, -4), as(OP_fsd, 14, s2, 8) },
        { as(OP_div, t3, t4, t5), as(OP_rem, t3, t4, t5) },
    };
    struct gen *g = test_calloc(1, sizeof(*g));
    struct code code;
    struct err err = { 0 };
    size_t most = 0;

    (void)state;
    assert_int_equal(code_init(&code, BUFFER_BYTES, &err), 0);
    for (unsigned shape = 0; shape < 4 * sizeof(pieces) / sizeof(pieces[0]); shape++) {
        gen_find_features();
        if (shape & 1)
            gen_features = (struct gen_features){ 0 };
        g->one_hart = shape & 2;
        size_t bytes = host_bytes(g, &code, pieces[shape / 4], 2);

        gen_choose_registers(g); /* once more, to see how many */
        assert_int_equal(g->exchanges, GEN_EXCHANGES_MAX);
        most = bytes > most ? bytes : most;
    }
    assert_in_range(most, 1, JIT_REGION_BYTES_MAX);
    code_free(&code);
    test_free(g);
}

/* Each turn: floating point on, used, off by a write of an immediate, and used again, which is illegal. */
static void an_immediate_write_of_sstatus_ends_floating_point(void **state)
{
    struct rig *rig = test_calloc(1, sizeof(*rig));

    (void)state;
    rig_new(rig, 1);
    put(rig, as(OP_lui, t0, 0, FS_INITIAL));
    put(rig, as(OP_addi, s2, zero, TURNS));
    uint64_t turn = here(rig);
    put(rig, as(OP_csrrs, zero, t0, SSTATUS));
    put(rig, as(OP_fadd_d, 1, 2, 3));
    put(rig, as(OP_csrrwi, zero, 0, SSTATUS));
    put(rig, as(OP_fadd_d, 1, 2, 3));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(turn - here(rig))));
    put_end(rig);
    uint64_t handler = here(rig);
    put(rig, as(OP_addi, a0, a0, 1));
    put(rig, as(OP_csrrs, t1, zero, 0x341));
    put(rig, as(OP_addi, t1, t1, 4));
    put(rig, as(OP_csrrw, zero, t1, 0x341));
    put(rig, as(OP_mret, 0, 0, 0));
    rig_hart(rig)->mtvec = handler;
    assert_int_equal(rig_run(rig)->x[a0], TURNS);
    rig_free(rig);
    test_free(rig);
}

/* Called from another region, so that it has no loop of its own; s2 is odd every other time. */
static const uint32_t *function(size_t *bytes)
{
    static uint32_t code[64];
    unsigned n = 0;

    code[n++] = as(OP_andi, t1, s2, 1);
    /* t3 is 100 or 7, and what computed the 7 stored it just before the label */
    code[n++] = as(OP_addi, t3, zero, 100);
    code[n++] = as(OP_bne, t1, zero, 8);
    code[n++] = as(OP_addi, t3, s7, 7);
    code[n++] = as(OP_add, a1, a1, t3);
    /* t4 is a word only on one of two ways */
    code[n++] = as(OP_slli, t4, s3, 35);
    code[n++] = as(OP_addi, t4, t4, 5);
    code[n++] = as(OP_bne, t1, zero, 8);
    code[n++] = as(OP_addw, t4, t4, zero);
    code[n++] = as(OP_addiw, t5, t4, 0);
    code[n++] = as(OP_add, a2, a2, t5);
    /* t4 was a word until two instructions, made into one, extended it with zeros */
    code[n++] = as(OP_addiw, t4, s4, 0);
    code[n++] = as(OP_slli, t4, t4, 32);
    code[n++] = as(OP_srli, t4, t4, 32);
    code[n++] = as(OP_addiw, t5, t4, 0);
    code[n++] = as(OP_add, a3, a3, t5);
    /* nobody looks at the upper half of the sum, but it is no word for that */
    code[n++] = as(OP_addw, t4, s5, s3);
    code[n++] = as(OP_addiw, t5, t4, 0);
    code[n++] = as(OP_addi, t4, zero, 0);
    code[n++] = as(OP_add, a4, a4, t5);
    code[n++] = as(OP_jalr, zero, ra, 0);
    *bytes = n * sizeof(code[0]);
    return code;
}

static void what_is_known_of_a_register_is_so_on_every_way(void **state)
{
    enum { FUNCTION_AT = 0x10000 };
    struct rig *rig = test_calloc(1, sizeof(*rig));
    size_t bytes;
    const uint32_t *code = function(&bytes);

    (void)state;
    rig_new(rig, 1);
    put_li(rig, s0, RIG_RAM + FUNCTION_AT);
    put_li(rig, s3, 1);
    put_li(rig, s4, UINT64_MAX);
    put_li(rig, s5, 0x7fffffff);
    put(rig, as(OP_addi, s2, zero, TURNS));
    uint64_t turn = here(rig);
    put(rig, as(OP_jalr, ra, s0, 0));
    put(rig, as(OP_addi, s2, s2, -1));
    put(rig, as(OP_bne, s2, zero, (int64_t)(turn - here(rig))));
    put_end(rig);
    assert_true(ram_load(rig->ram, RIG_RAM + FUNCTION_AT, code, bytes));
    const struct hart *hart = rig_run(rig);
    assert_int_equal(hart->x[a1], TURNS / 2 * (100 + 7));
    assert_int_equal(hart->x[a2], TURNS * 5);
    assert_int_equal(hart->x[a3], -(uint64_t)TURNS);
    assert_int_equal(hart->x[a4], -(uint64_t)TURNS << 31);
    rig_free(rig);
    test_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_region_fits),
        cmocka_unit_test(an_immediate_write_of_sstatus_ends_floating_point),
        cmocka_unit_test(what_is_known_of_a_register_is_so_on_every_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
