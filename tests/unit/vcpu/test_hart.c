#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "vcpu/trap.h"

static struct hart hart;

static int setup(void **state)
{
    (void)state;
    hart = (struct hart){ 0 };
    hart_reset(&hart, 2, 0x1000);
    return 0;
}

static struct buf saved(void)
{
    struct buf out = { 0 };
    state_save(&hart_state, &hart, &out);
    return out;
}

static int load(struct hart *into, const struct buf *bytes, struct err *err)
{
    struct reader in = reader_of(bytes->data, bytes->size);
    return state_load(&hart_state, into, hart_state.version, &in, err);
}

static void reset_enters_m_with_everything_off(void **state)
{
    (void)state;
    memset(&hart, 0xff, sizeof(hart));
    hart.pins = IRQ_BIT(IRQ_S_EXT);
    hart_reset(&hart, 2, 0x1000);
    assert_int_equal(hart.priv, PRIV_M);
    assert_int_equal(hart.pc, 0x1000);
    assert_int_equal(hart.hartid, 2);
    assert_false(hart.mstatus & (MSTATUS_MIE | MSTATUS_MPRV | MSTATUS_FS));
    assert_true(hart.satp == 0 && hart.mie == 0 && hart.mideleg == 0 && !hart.reserved && !hart.waiting);
    for (int i = 0; i < HART_PMP_ENTRIES; i++)
        assert_int_equal(hart.pmpcfg[i], 0);
    assert_true(hart.menvcfg == MENVCFG_ADUE);       /* A and D by hardware until software says otherwise */
    assert_int_equal(hart.pins, IRQ_BIT(IRQ_S_EXT)); /* the wires are the devices' */
    assert_int_equal(hart_state.validate(&hart, NULL), 0);
}

static void mip_joins_wires_software_bits_and_the_timer(void **state)
{
    (void)state;
    hart.pins = IRQ_BIT(IRQ_M_TIMER) | IRQ_BIT(IRQ_S_EXT);
    hart.mip_soft = IRQ_BIT(IRQ_S_SOFT) | IRQ_BIT(IRQ_S_TIMER);
    hart.stimecmp = 50;
    assert_int_equal(hart_mip(&hart, 10), 0x2a2);
    hart.menvcfg |= MENVCFG_STCE; /* the software bit is hidden now */
    assert_int_equal(hart_mip(&hart, 49), 0x282);
    assert_int_equal(hart_mip(&hart, 50), 0x2a2);
}

/* A hart with something else in every byte that may hold anything. */
static void fill(void)
{
    for (int i = 1; i < 32; i++) {
        hart.x[i] = UINT64_C(0x0101010101010101) * (unsigned)i;
        hart.mhpmcounter[i] = i < 3 ? 0 : (uint64_t)i;
        hart.mhpmevent[i] = i < 3 ? 0 : (uint64_t)i << 32;
    }
    for (int i = 0; i < 32; i++)
        hart.f[i] = ~(uint64_t)i;
    for (int i = 0; i < HART_PMP_ENTRIES; i++) {
        hart.pmpcfg[i] = 0x1f;
        hart.pmpaddr[i] = (uint64_t)i << 20;
    }
    hart.pc = 0xffffffff80001234;
    hart.priv = PRIV_S;
    hart.fflags = 21;
    hart.frm = 4;
    hart.waiting = hart.reserved = true;
    hart.reserved_gpa = 0x80001000;
    hart.reserved_value = 7;
    hart.mstatus |= MSTATUS_FS | MSTATUS_SIE | MSTATUS_MPP;
    hart.medeleg = 0xb109;
    hart.mideleg = 0x222;
    hart.mie = 0x2aa;
    hart.mtvec = 0x80000001;
    hart.mscratch = 1;
    hart.mepc = 2;
    hart.mcause = CAUSE_INTERRUPT | 5;
    hart.mtval = 4;
    hart.menvcfg = MENVCFG_STCE | MENVCFG_CBZE;
    hart.mip_soft = 2;
    hart.stvec = 0x1000;
    hart.sscratch = 6;
    hart.sepc = 8;
    hart.scause = 13;
    hart.stval = 9;
    hart.satp = UINT64_C(9) << 60 | 0x80000;
    hart.senvcfg = MENVCFG_CBZE;
    hart.stimecmp = 10;
    hart.mcounteren = 7;
    hart.scounteren = 2;
    hart.mcountinhibit = 1;
    hart.mcycle = 11;
    hart.minstret = 12;
    hart.pins = 0x888;
}

static void a_saved_hart_loads_as_the_same_hart(void **state)
{
    (void)state;
    fill();
    struct buf bytes = saved();
    struct hart *loaded = calloc(1, sizeof(*loaded));
    struct err err = { 0 };
    if (load(loaded, &bytes, &err))
        fail_msg("%s", err.text);
    /* What the field table forgets stays 0 in `loaded`; padding is 0 in both. */
    assert_memory_equal(loaded, &hart, sizeof(hart));
    free(loaded);
    buf_free(&bytes);
}

/* Harts that were saved must load for ever: who changes the layout raises the version and keeps the old one. */
static void the_layout_of_version_1_stays(void **state)
{
    (void)state;
    struct buf bytes = saved();
    assert_int_equal(hart_state.version, 1);
    assert_int_equal(bytes.size, 1402);
    assert_int_equal(bytes.size, state_wire_bytes(&hart_state, 1));
    buf_free(&bytes);
}

/* Each line breaks one rule; the hart must be refused with a sentence that names the field. */
static void values_that_no_hart_can_hold_are_refused_by_name(void **state)
{
    (void)state;
#define REFUSES(name, breakage)                                                                                        \
    do {                                                                                                               \
        setup(NULL);                                                                                                   \
        breakage;                                                                                                      \
        struct buf bytes = saved();                                                                                    \
        struct hart into = { 0 }, before = { 0 };                                                                      \
        struct err err = { 0 };                                                                                        \
        assert_true(load(&into, &bytes, &err) < 0);                                                                    \
        if (!strstr(err.text, name))                                                                                   \
            fail_msg("\"%s\" does not name %s", err.text, name);                                                       \
        assert_memory_equal(&into, &before, sizeof(into));                                                             \
        buf_free(&bytes);                                                                                              \
    } while (0)
    REFUSES("x[0]", hart.x[0] = 1);
    REFUSES("pc", hart.pc = 1);
    REFUSES("priv", hart.priv = 2);
    REFUSES("priv", hart.priv = 4);
    REFUSES("fflags", hart.fflags = 32);
    REFUSES("frm", hart.frm = 8);
    REFUSES("stopped", hart.stopped = true);
    REFUSES("reserved_gpa", hart.reserved_gpa = 2);
    REFUSES("reserved_gpa", hart.reserved_gpa = UINT64_C(1) << 56);
    REFUSES("hartid", hart.hartid = HART_MAX);
    REFUSES("mstatus", hart.mstatus |= UINT64_C(2) << 11);
    REFUSES("mstatus", hart.mstatus |= MSTATUS_SD);
    REFUSES("mstatus", hart.mstatus |= MSTATUS_UBE);
    REFUSES("mstatus", hart.mstatus &= ~MSTATUS_UXL);
    REFUSES("medeleg", hart.medeleg = 1 << CAUSE_ECALL_M);
    REFUSES("mideleg", hart.mideleg = IRQ_BIT(IRQ_M_SOFT));
    REFUSES("mie", hart.mie = 1);
    REFUSES("mtvec", hart.mtvec = 2);
    REFUSES("stvec", hart.stvec = 3);
    REFUSES("mepc", hart.mepc = 1);
    REFUSES("sepc", hart.sepc = 1);
    REFUSES("menvcfg", hart.menvcfg = 2);
    REFUSES("menvcfg", hart.menvcfg = UINT64_C(2) << 4);
    REFUSES("senvcfg", hart.senvcfg = MENVCFG_STCE);
    REFUSES("senvcfg", hart.senvcfg = UINT64_C(2) << 4);
    REFUSES("mseccfg", hart.mseccfg = 1);
    REFUSES("mip_soft", hart.mip_soft = IRQ_BIT(IRQ_M_TIMER));
    REFUSES("satp", hart.satp = UINT64_C(1) << 60);
    REFUSES("satp", hart.satp = UINT64_C(11) << 60);
    REFUSES("mcountinhibit", hart.mcountinhibit = 2);
    REFUSES("pmpcfg[0]", hart.pmpcfg[0] = 0x40);
    REFUSES("pmpcfg[3]", hart.pmpcfg[3] = 0x20);
    REFUSES("pmpcfg[15]", hart.pmpcfg[15] = 2);
    REFUSES("pmpaddr[1]", hart.pmpaddr[1] = UINT64_C(1) << 54);
    REFUSES("mhpmcounter[2]", hart.mhpmcounter[2] = 1);
    REFUSES("mhpmevent[0]", hart.mhpmevent[0] = 1);
    REFUSES("pins", hart.pins = 1);
    REFUSES("pins", hart.pins = IRQ_BIT(IRQ_S_TIMER));
#undef REFUSES
}

static uint64_t seed = 0x853c49e6748fea9b;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

/* Whatever CSR instructions and traps then do to it, a loaded hart is one that could be saved again. */
static void stays_valid(struct hart *loaded)
{
    struct err err = { 0 };
    for (int i = 0; i < 16; i++) {
        unsigned effects = 0;
        uint64_t value;
        hart_csr_read(loaded, rnd() & 0xfff, rnd() & 1, rnd(), &value);
        hart_csr_write(loaded, rnd() & 0xfff, rnd(), &effects);
        uint64_t cause = hart_pending_interrupt(loaded, rnd());
        if (cause)
            hart_trap(loaded, cause, 0, &effects);
        if (rnd() & 1)
            hart_mret(loaded, &effects);
        hart_sret(loaded, &effects);
        hart_trap(loaded, CAUSE_LOAD_PAGE, rnd(), &effects);
    }
    if (hart_state.validate(loaded, &err))
        fail_msg("%s", err.text);
}

static void flipped_bytes_never_leave_an_invalid_hart(void **state)
{
    (void)state;
    fill();
    struct buf good = saved();
    int accepted = 0, refused = 0;
    for (int i = 0; i < 20000; i++) {
        struct hart into = hart, before = hart;
        struct buf bytes = { 0 };
        struct err err = { 0 };
        buf_put(&bytes, good.data, good.size);
        for (uint64_t flips = 1 + rnd() % 4; flips; flips--)
            bytes.data[rnd() % bytes.size] ^= (uint8_t)(1u << (rnd() & 7));
        if (load(&into, &bytes, &err)) {
            refused++;
            assert_true(err.text[0]);
            assert_memory_equal(&into, &before, sizeof(into));
        } else {
            accepted++;
            stays_valid(&into);
        }
        buf_free(&bytes);
    }
    assert_true(accepted > 100 && refused > 100); /* or this test shows nothing */
    buf_free(&good);
}

static void random_and_short_bytes_are_refused(void **state)
{
    (void)state;
    size_t full = state_wire_bytes(&hart_state, hart_state.version);
    for (int i = 0; i < 2000; i++) {
        struct hart into = hart, before = hart;
        struct buf bytes = { 0 };
        struct err err = { 0 };
        size_t size = i % 2 ? full : rnd() % (2 * full);
        for (size_t at = 0; at < size; at++)
            buf_put_u8(&bytes, (uint8_t)rnd());
        assert_true(load(&into, &bytes, &err) < 0); /* x[0] alone refuses all but one of 2^64 */
        assert_memory_equal(&into, &before, sizeof(into));
        buf_free(&bytes);
    }
}

static void printing_shows_the_registers_by_name(void **state)
{
    (void)state;
    fill();
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    hart_print(&hart, out);
    fclose(out);
    assert_non_null(strstr(text, "pc       ffffffff80001234  S  waiting"));
    assert_non_null(strstr(text, "x10/a0   0a0a0a0a0a0a0a0a"));
    assert_non_null(strstr(text, "satp     9000000000080000"));
    assert_non_null(strstr(text, "f31/ft11"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reset_enters_m_with_everything_off, setup),
        cmocka_unit_test_setup(mip_joins_wires_software_bits_and_the_timer, setup),
        cmocka_unit_test_setup(a_saved_hart_loads_as_the_same_hart, setup),
        cmocka_unit_test_setup(the_layout_of_version_1_stays, setup),
        cmocka_unit_test_setup(values_that_no_hart_can_hold_are_refused_by_name, setup),
        cmocka_unit_test_setup(flipped_bytes_never_leave_an_invalid_hart, setup),
        cmocka_unit_test_setup(random_and_short_bytes_are_refused, setup),
        cmocka_unit_test_setup(printing_shows_the_registers_by_name, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
