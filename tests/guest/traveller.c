/* The guest that is handed on a thousand times: all that can be in flight is in flight in every pause, and nothing may be lost.
 *
 * Every hart, over and over:
 *   memory    writes its pages one after the other, each only when it holds what it wrote a pass ago
 *   floats    a chain over all 32 floating point registers under one of five rounding modes, which takes so long that pauses
 *             fall into it; its bits must be those of the first time
 *   atomics   amo and lr/sc on words that all harts share; how often it did is counted beside them
 *   timer     an interrupt every PERIOD of guest time, each due a PERIOD behind the one before: a lost one stops all that follow
 * Hart 0 also has requests at virtio-rng (virtio 1.2, 4.2.2 and 5.4) and sees that each comes back, and answers the console:
 *   s   prints "traveller mtime M rtc R ticks T,T.. pass P entropy E", M and R read as close together as it can
 *   q   waits for the timers and requests that are due, compares all sums, prints OK and powers off
 *   x   spoils a page, y a sum: to see that the checks see it
 * Arguments: mem=1M of all harts together, period_us=2000. */
#include "lib.h"

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, FLOAT_STEPS = 4000, ROUNDINGS = 5, ATOMIC_STEPS = 64 };

static struct {
    unsigned harts;
    uint64_t pages, period;
    uint64_t *base;
    bool stop;
    struct barrier ready, stopped;
} config;

static struct {
    uint64_t start, due, ticks; /* written by its interrupt */
    uint64_t pass, amo, lrsc, last_mtime;
    uint64_t first[ROUNDINGS][32]; /* bits of the first chain */
    bool known[ROUNDINGS];
} part[HARTS_MAX];

static uint64_t shared_amo, shared_lrsc, shared_xor;

extern char __end[];

_Noreturn static void lost(const char *what, unsigned hart, uint64_t expected, uint64_t got)
{
    print("MISMATCH %s hart %u expected 0x%lx got 0x%lx\n", what, hart, expected, got);
    power_off_failed();
}

/* --- timer ------------------------------------------------------------------------------------------------- */

static bool on_trap(struct trap_words *words)
{
    unsigned hart = hart_self();

    if (words->cause != (UINT64_C(1) << 63 | 7))
        return false;
    if (mtime() < part[hart].due)
        lost("EARLY timer", hart, part[hart].due, mtime());
    part[hart].due += config.period;
    __atomic_store_n(&part[hart].ticks, part[hart].ticks + 1, __ATOMIC_RELEASE);
    mtimecmp_set(hart, part[hart].due);
    return true;
}

static void timer_start(unsigned hart)
{
    part[hart].start = mtime();
    part[hart].due = part[hart].start + config.period;
    mtimecmp_set(hart, part[hart].due);
    csr_set(mie, MIP_MTIP);
    csr_set(mstatus, MSTATUS_MIE);
}

/* Until all that were due when this began have come: a lost one is waited for for ever, and the host sees that. */
static void timer_wait(unsigned hart)
{
    uint64_t due = (mtime() - part[hart].start) / config.period;

    while (__atomic_load_n(&part[hart].ticks, __ATOMIC_ACQUIRE) < due)
        continue;
}

/* --- memory ------------------------------------------------------------------------------------------------ */

static uint64_t word_of(uint64_t page, uint64_t pass, unsigned i)
{
    return pass == 0 ? 0 : i % 8 ? page << 20 | i : (page << 32 | pass) * 0x9e3779b97f4a7c15 + i;
}

static void step_memory(unsigned hart, uint64_t n)
{
    uint64_t own = config.pages / config.harts, page = hart * own + n % own, pass = n / own;
    volatile uint64_t *at = config.base + page * PAGE_WORDS;

    for (unsigned i = 0; i < PAGE_WORDS; i++)
        if (at[i] != word_of(page, pass, i))
            lost("memory", hart, word_of(page, pass, i), at[i]);
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        at[i] = word_of(page, pass + 1, i);
    part[hart].pass = pass;
}

/* --- floats ------------------------------------------------------------------------------------------------ */

/* All registers hold something else, and each step makes every one of them out of its neighbours. */
static void chain(unsigned rounding, uint64_t bits[32])
{
    static const double third = 1.0 / 3, seed = 1.0000001;

    __asm__ volatile(
        "fsrm %[mode]\n"
        "fsflags zero\n"
        "fld f0, (%[seed])\n"
        "fld f1, (%[third])\n"
        ".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "  fadd.d f\\n, f0, f1\n"
        "  fmul.d f0, f0, f\\n\n"
        "  fdiv.d f0, f0, f\\n\n"
        "  fadd.d f1, f1, f0\n"
        ".endr\n"
        "mv t0, %[steps]\n"
        "1:\n"
        ".irp n, 2,5,8,11,14,17,20,23,26,29\n"
        "  fmadd.d f\\n, f\\n, f1, f0\n"
        "  fdiv.d f\\n, f\\n, f31\n"
        ".endr\n"
        ".irp n, 3,6,9,12,15,18,21,24,27,30\n"
        "  fsqrt.d f\\n, f\\n\n"
        "  fadd.d f\\n, f\\n, f2\n"
        ".endr\n"
        ".irp n, 4,7,10,13,16,19,22,25,28\n"
        "  fmul.d f\\n, f\\n, f3\n"
        "  fcvt.s.d f\\n, f\\n\n"
        "  fcvt.d.s f\\n, f\\n\n"
        "  fsqrt.d f\\n, f\\n\n"
        ".endr\n"
        "fmin.d f31, f30, f29\n"
        "fadd.d f31, f31, f1\n"
        "addi t0, t0, -1\n"
        "bnez t0, 1b\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "  fsd f\\n, 8*\\n(%[out])\n"
        ".endr\n"
        "fsrm zero\n"
        :
        : [mode] "r"(rounding), [seed] "r"(&seed), [third] "r"(&third), [steps] "r"(FLOAT_STEPS), [out] "r"(bits)
        : "t0", "memory", "f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14",
          "f15", "f16", "f17", "f18", "f19", "f20", "f21", "f22", "f23", "f24", "f25", "f26", "f27", "f28", "f29",
          "f30", "f31");
    bits[31] += csr_read(fflags) << 56; /* the flags as well */
}

static void step_floats(unsigned hart, uint64_t n)
{
    unsigned rounding = (unsigned)(n % ROUNDINGS);
    uint64_t bits[32], *first = part[hart].first[rounding];

    chain(rounding, bits);
    for (unsigned i = 0; i < 32; i++) {
        if (!part[hart].known[rounding])
            first[i] = bits[i];
        if (first[i] != bits[i])
            lost("float", hart, first[i], bits[i]);
    }
    part[hart].known[rounding] = true;
}

/* --- atomics ----------------------------------------------------------------------------------------------- */

static void step_atomics(unsigned hart)
{
    for (unsigned i = 0; i < ATOMIC_STEPS; i++) {
        uint64_t old, failed, one = 1;
        __asm__ volatile("amoadd.d %0, %2, %1" : "=r"(old), "+A"(shared_amo) : "r"(one) : "memory");
        __asm__ volatile("1: lr.d %0, %2\n"
                         "addi %0, %0, 1\n"
                         "sc.d %1, %0, %2\n"
                         "bnez %1, 1b\n"
                         : "=&r"(old), "=&r"(failed), "+A"(shared_lrsc)
                         :
                         : "memory");
        __asm__ volatile("amoxor.d %0, %2, %1" : "=r"(old), "+A"(shared_xor) : "r"(UINT64_C(1) << hart) : "memory");
        part[hart].amo++;
        part[hart].lrsc++;
    }
}

/* --- virtio-rng, modern registers, one queue that is polled --------------------------------------------------- */

enum { QUEUE = 8, REQUEST_BYTES = 64 };
enum {
    MMIO_MAGIC = 0,
    MMIO_VERSION = 1,
    MMIO_DEVICE = 2,
    MMIO_FEATURES = 4,
    MMIO_FEATURES_SELECT = 5,
    MMIO_DRIVER = 8,
    MMIO_DRIVER_SELECT = 9,
    MMIO_QUEUE = 12,
    MMIO_QUEUE_MAX = 13,
    MMIO_QUEUE_SIZE = 14,
    MMIO_READY = 17,
    MMIO_NOTIFY = 20,
    MMIO_IRQ = 24,
    MMIO_IRQ_ACK = 25,
    MMIO_STATUS = 28,
    MMIO_DESC = 32,
    MMIO_AVAIL = 36,
    MMIO_USED = 40
}; /* words */
enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };

static struct {
    volatile uint32_t *reg; /* NULL: there is none */
    uint16_t given, taken;
    uint64_t bytes;
} rng;
static struct {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
} desc[QUEUE] __attribute__((aligned(4096)));
static struct {
    uint16_t flags, index, ring[QUEUE], event;
} avail __attribute__((aligned(4096)));
static struct {
    uint16_t flags;
    uint16_t index;
    struct {
        uint32_t id, bytes;
    } ring[QUEUE];
    uint16_t event;
} used __attribute__((aligned(4096)));
static uint8_t entropy[QUEUE][REQUEST_BYTES];

static void rng_address(unsigned word, const void *at)
{
    rng.reg[word] = (uint32_t)(uintptr_t)at;
    rng.reg[word + 1] = (uint32_t)((uintptr_t)at >> 32);
}

static void rng_start(void)
{
    for (unsigned slot = 0; slot < 8 && !rng.reg; slot++) {
        volatile uint32_t *reg = (volatile uint32_t *)(0x10001000 + (uintptr_t)slot * 0x1000);
        if (reg[MMIO_MAGIC] == 0x74726976 && reg[MMIO_VERSION] == 2 && reg[MMIO_DEVICE] == 4)
            rng.reg = reg;
    }
    if (!rng.reg)
        return;
    rng.reg[MMIO_STATUS] = 0;
    rng.reg[MMIO_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    rng.reg[MMIO_DRIVER_SELECT] = 1;
    rng.reg[MMIO_DRIVER] = 1; /* VIRTIO_F_VERSION_1, bit 32 */
    rng.reg[MMIO_DRIVER_SELECT] = 0;
    rng.reg[MMIO_DRIVER] = 0;
    rng.reg[MMIO_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    rng.reg[MMIO_QUEUE] = 0;
    rng.reg[MMIO_QUEUE_SIZE] = QUEUE;
    rng_address(MMIO_DESC, desc);
    rng_address(MMIO_AVAIL, &avail);
    rng_address(MMIO_USED, &used);
    rng.reg[MMIO_READY] = 1;
    rng.reg[MMIO_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
}

/* Takes what has come back and, unless told to end, gives new ones. */
static void step_rng(bool more)
{
    bool given = false;

    if (!rng.reg)
        return;
    for (; rng.taken != __atomic_load_n(&used.index, __ATOMIC_ACQUIRE); rng.taken++) {
        uint32_t id = used.ring[rng.taken % QUEUE].id, bytes = used.ring[rng.taken % QUEUE].bytes;
        if (id >= QUEUE || bytes == 0 || bytes > REQUEST_BYTES)
            lost("virtio request", 0, REQUEST_BYTES, (uint64_t)id << 32 | bytes);
        if (desc[id].bytes == 0)
            lost("virtio request twice", 0, 0, id);
        desc[id].bytes = 0;
        rng.bytes += bytes;
    }
    for (unsigned id = 0; more && id < QUEUE; id++) {
        if (desc[id].bytes)
            continue;
        desc[id].address = (uintptr_t)entropy[id];
        desc[id].bytes = REQUEST_BYTES;
        desc[id].flags = 2; /* the device writes */
        avail.ring[rng.given % QUEUE] = (uint16_t)id;
        __atomic_store_n(&avail.index, ++rng.given, __ATOMIC_RELEASE);
        given = true;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (given)
        rng.reg[MMIO_NOTIFY] = 0;
    if (rng.reg[MMIO_IRQ])
        rng.reg[MMIO_IRQ_ACK] = rng.reg[MMIO_IRQ];
}

/* --- the console ---------------------------------------------------------------------------------------------- */

/* The rtc follows the host, mtime stands still in a pause: they are read close together, the tightest of some tries. */
static void state_line(void)
{
    uint64_t best = UINT64_MAX, at = 0, wall = 0;

    for (unsigned i = 0; i < 16; i++) {
        uint64_t before = rtc_ns(), now = mtime(), after = rtc_ns();
        if (after - before < best) {
            best = after - before;
            at = now;
            wall = before + best / 2;
        }
    }
    print("traveller mtime %lu rtc %lu within %lu ticks %lu pass %lu entropy %lu\n", at, wall, best,
          __atomic_load_n(&part[0].ticks, __ATOMIC_RELAXED), part[0].pass, rng.bytes);
}

static void look_at_console(void)
{
    switch (get_char()) {
    case 's': state_line(); break;
    case 'q': __atomic_store_n(&config.stop, true, __ATOMIC_RELEASE); break;
    case 'x': *(volatile uint64_t *)&config.base[PAGE_WORDS / 2] ^= 4; break;
    case 'y': __atomic_fetch_add(&shared_amo, 1, __ATOMIC_RELAXED); break;
    default: break;
    }
}

/* --- all of it -------------------------------------------------------------------------------------------------- */

static void travel(unsigned hart)
{
    barrier_wait(&config.ready, config.harts);
    part[hart].last_mtime = mtime();
    timer_start(hart);
    for (uint64_t n = 0; !__atomic_load_n(&config.stop, __ATOMIC_ACQUIRE); n++) {
        step_memory(hart, n);
        step_atomics(hart);
        if (n % 16 == hart)
            step_floats(hart, n / 16);
        uint64_t now = mtime();
        if (now < part[hart].last_mtime)
            lost("BACKWARDS time", hart, part[hart].last_mtime, now);
        part[hart].last_mtime = now;
        if (hart == 0) {
            step_rng(true);
            look_at_console();
        }
    }
    timer_wait(hart);
    csr_clear(mstatus, MSTATUS_MIE);
    barrier_wait(&config.stopped, config.harts);
}

static void compare_sums(void)
{
    uint64_t amo = 0, lrsc = 0;

    for (unsigned i = 0; i < config.harts; i++) {
        amo += part[i].amo;
        lrsc += part[i].lrsc;
    }
    if (shared_amo != amo)
        lost("amoadd", 0, amo, shared_amo);
    if (shared_lrsc != lrsc)
        lost("lr/sc", 0, lrsc, shared_lrsc);
    if (shared_xor != 0) /* an even number each */
        lost("amoxor", 0, 0, shared_xor);
    while (rng.reg && rng.taken != rng.given)
        step_rng(false);
}

int main(unsigned hart, const void *dtb)
{
    struct boot boot = boot_scan(dtb);

    config.harts = boot.harts;
    config.base = (uint64_t *)(((uintptr_t)__end + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1));
    config.pages = arg_number(boot.args, "mem", 1 << 20) / PAGE_BYTES;
    config.period = arg_number(boot.args, "period_us", 2000) * (TICKS_PER_S / 1000000);
    if (config.pages < config.harts || config.period == 0 ||
        (uintptr_t)config.base + config.pages * PAGE_BYTES > 0x80000000 + boot.ram_bytes) {
        print("FAILED traveller: memory or period\n");
        power_off_failed();
    }
    trap_hook = on_trap;
    rng_start();
    print("traveller: %u harts, %lu pages, virtio-rng %s\n", config.harts, config.pages, rng.reg ? "at work" : "none");
    harts_start(config.harts, travel);
    travel(hart);
    compare_sums();
    state_line();
    print("OK\n");
    power_off();
}
