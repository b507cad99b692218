#include "lib.h"

static volatile uint8_t *const uart = (volatile uint8_t *)0x10000000;
static volatile uint32_t *const rtc = (volatile uint32_t *)0x101000;
static volatile uint32_t *const power = (volatile uint32_t *)0x100000;
static volatile uint32_t *const msip = (volatile uint32_t *)0x2000000;
static volatile uint64_t *const mtimecmp = (volatile uint64_t *)0x2004000;
static volatile uint64_t *const mtime_register = (volatile uint64_t *)0x200bff8;

enum { UART_LSR = 5, LSR_DATA = 1, LSR_EMPTY = 0x20 };

void (*guest_hart_entry)(unsigned hart);
uint64_t guest_mode_sp[HARTS_MAX];
struct trap_record trap_record[HARTS_MAX];
bool (*trap_hook)(struct trap_words *words);
static struct spin console;

extern char mode_ecall[], mode_return[];
void trap(struct trap_words *words);

/* The compiler calls these by itself. */
void *memset(void *to, int value, size_t bytes);
void *memcpy(void *to, const void *from, size_t bytes);

void *memset(void *to, int value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((volatile char *)to)[i] = (char)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

/* --- console ------------------------------------------------------------------------------------------- */

void put_char(char c)
{
    while (!(uart[UART_LSR] & LSR_EMPTY))
        ;
    uart[0] = (uint8_t)c;
}

int get_char(void)
{
    return uart[UART_LSR] & LSR_DATA ? uart[0] : -1;
}

static void put_number(uint64_t value, unsigned base, unsigned width)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value > 0);
    for (unsigned i = n; i < width; i++)
        put_char('0');
    while (n > 0)
        put_char(digits[--n]);
}

static void put_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            put_char('\r');
        put_char(*text);
    }
}

void print(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    spin_lock(&console);
    for (; *format; format++) {
        if (*format != '%') {
            put_text((char[]){ *format, '\0' });
            continue;
        }
        unsigned width = 0;
        bool wide = false;
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (unsigned)(*format - '0');
        for (; *format == 'l'; format++)
            wide = true;
        uint64_t value = 0;
        if (*format == 'u' || *format == 'x')
            value = wide ? va_arg(list, uint64_t) : va_arg(list, unsigned);
        switch (*format) {
        case 's': put_text(va_arg(list, const char *)); break;
        case 'c': put_char((char)va_arg(list, int)); break;
        case 'd': {
            int64_t number = wide ? va_arg(list, int64_t) : va_arg(list, int);
            if (number < 0)
                put_char('-');
            put_number(number < 0 ? -(uint64_t)number : (uint64_t)number, 10, 0);
            break;
        }
        case 'u': put_number(value, 10, width); break;
        case 'x': put_number(value, 16, width); break;
        default: put_char(*format); break;
        }
    }
    spin_unlock(&console);
    va_end(list);
}

/* --- clocks and power ---------------------------------------------------------------------------------- */

uint64_t rtc_ns(void)
{
    uint64_t low = rtc[0]; /* latches the high half */
    return low | (uint64_t)rtc[1] << 32;
}

uint64_t mtime(void)
{
    return *mtime_register;
}

void mtimecmp_set(unsigned hart, uint64_t ticks)
{
    mtimecmp[hart] = ticks;
}

void sleep_until(unsigned hart, uint64_t ticks)
{
    mtimecmp[hart] = ticks;
    csr_set(mie, MIP_MTIP);
    while (mtime() < ticks)
        __asm__ volatile("wfi" : : : "memory");
    mtimecmp[hart] = UINT64_MAX;
}

_Noreturn static void power_write(uint32_t value)
{
    for (;;)
        *power = value;
}

void power_off(void)
{
    power_write(0x5555);
}

void power_off_failed(void)
{
    power_write(0x3333 | 1 << 16);
}

/* --- harts --------------------------------------------------------------------------------------------- */

void msip_set(unsigned hart, bool on)
{
    msip[hart] = on;
}

void harts_start(unsigned harts, void (*entry)(unsigned hart))
{
    __atomic_store_n(&guest_hart_entry, entry, __ATOMIC_RELEASE);
    __asm__ volatile("fence rw, rw" : : : "memory");
    for (unsigned hart = 1; hart < harts; hart++)
        msip_set(hart, true);
}

void spin_lock(struct spin *spin)
{
    while (__atomic_exchange_n(&spin->held, 1, __ATOMIC_ACQUIRE))
        ;
}

void spin_unlock(struct spin *spin)
{
    __atomic_store_n(&spin->held, 0, __ATOMIC_RELEASE);
}

void barrier_wait(struct barrier *barrier, unsigned harts)
{
    uint32_t generation = __atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE);

    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == harts) {
        barrier->arrived = 0;
        __atomic_store_n(&barrier->generation, generation + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE) == generation)
        ;
}

/* --- device tree --------------------------------------------------------------------------------------- */

enum { FDT_BEGIN_NODE = 1, FDT_END_NODE = 2, FDT_PROP = 3, FDT_NOP = 4 };

static uint32_t be32(const void *at)
{
    const uint8_t *b = at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static bool begins(const char *text, const char *with)
{
    while (*with)
        if (*text++ != *with++)
            return false;
    return true;
}

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static size_t padded(size_t bytes)
{
    return (bytes + 3) & ~(size_t)3;
}

/* One pass over the structure block; the nodes wanted are told by name alone (cpu@, memory@, chosen). */
struct boot boot_scan(const void *dtb)
{
    struct boot boot = { .args = "" };
    const char *at = (const char *)dtb + be32((const char *)dtb + 8);
    const char *strings = (const char *)dtb + be32((const char *)dtb + 12);
    const char *node = "";

    for (;;) {
        uint32_t token = be32(at);
        at += 4;
        if (token == FDT_BEGIN_NODE) {
            node = at;
            boot.harts += begins(node, "cpu@");
            while (*at++)
                ;
            at = (const char *)padded((size_t)at);
        } else if (token == FDT_PROP) {
            uint32_t bytes = be32(at);
            const char *name = strings + be32(at + 4), *value = at + 8;
            if (begins(node, "memory@") && same(name, "reg"))
                boot.ram_bytes = (uint64_t)be32(value + 8) << 32 | be32(value + 12);
            if (same(node, "chosen") && same(name, "bootargs"))
                boot.args = value;
            at = value + padded(bytes);
        } else if (token == FDT_END_NODE) {
            node = "";
        } else if (token != FDT_NOP) {
            return boot;
        }
    }
}

/* The text after "name=" in args, or NULL. */
static const char *arg_find(const char *args, const char *name)
{
    for (const char *at = args; *at; at++) {
        if ((at != args && at[-1] != ' ') || !begins(at, name))
            continue;
        const char *end = at;
        for (const char *n = name; *n; n++)
            end++;
        if (*end == '=')
            return end + 1;
    }
    return NULL;
}

uint64_t arg_number(const char *args, const char *name, uint64_t missing)
{
    const char *at = arg_find(args, name);
    uint64_t value = 0;

    if (!at)
        return missing;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    switch (*at) {
    case 'k':
    case 'K': return value << 10;
    case 'M': return value << 20;
    case 'G': return value << 30;
    default: return value;
    }
}

bool arg_is(const char *args, const char *name, const char *value)
{
    const char *at = arg_find(args, name);

    if (!at || !begins(at, value))
        return false;
    while (*value)
        at++, value++;
    return *at == ' ' || *at == '\0';
}

/* --- traps --------------------------------------------------------------------------------------------- */

void expect_traps(bool expected)
{
    trap_record[hart_self()] = (struct trap_record){ .expected = expected };
}

static void leave_mode(struct trap_words *words)
{
    words->reg[0] = (uint64_t)mode_return;
    words->status |= MSTATUS_MPP;
}

enum { CAUSE_FETCH_ACCESS = 1, CAUSE_ECALL_U = 8, CAUSE_ECALL_M = 11, CAUSE_FETCH_PAGE = 12 };

void trap(struct trap_words *words)
{
    struct trap_record *record = &trap_record[hart_self()];
    uint64_t cause = words->cause, pc = words->reg[0];

    if (trap_hook && trap_hook(words))
        return;
    if (cause >= CAUSE_ECALL_U && cause <= CAUSE_ECALL_M && pc == (uint64_t)mode_ecall) {
        leave_mode(words);
        return;
    }
    if (!record->expected || cause >> 63) {
        print("TRAP hart %u cause 0x%lx pc 0x%lx value 0x%lx\n", hart_self(), cause, pc, words->value);
        power_off_failed();
    }
    record->count++;
    record->cause = cause;
    record->pc = pc;
    record->value = words->value;
    record->status = words->status;
    if (cause == CAUSE_FETCH_ACCESS || cause == CAUSE_FETCH_PAGE)
        leave_mode(words); /* there is no instruction to skip */
    else
        words->reg[0] = pc + ((*(const uint16_t *)pc & 3) == 3 ? 4 : 2); /* code lies where M mode sees it */
}

void pmp_open(void)
{
    csr_write(pmpaddr0, UINT64_MAX);
    csr_write(pmpcfg0, 0x1f); /* NAPOT over everything, RWX */
}

/* --- self-checking tests ------------------------------------------------------------------------------- */

void test_failed(const char *name, int line)
{
    print("FAIL %s %d\n", name, line);
    power_off_failed();
}

void test_passed(const char *name)
{
    print("PASS %s\n", name);
    power_off();
}
