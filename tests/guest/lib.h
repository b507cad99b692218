/* What bare-metal guests share: console, clocks, power, harts, traps, boot arguments. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HARTS_MAX = 64, TICKS_PER_S = 10000000 };

/* --- CSRs ---------------------------------------------------------------------------------------------- */

#define csr_read(name)                                                                                                 \
    ({                                                                                                                 \
        uint64_t csr_value;                                                                                            \
        __asm__ volatile("csrr %0, " #name : "=r"(csr_value) : : "memory");                                            \
        csr_value;                                                                                                     \
    })
#define csr_write(name, value) __asm__ volatile("csrw " #name ", %0" : : "r"((uint64_t)(value)) : "memory")
#define csr_set(name, value)   __asm__ volatile("csrs " #name ", %0" : : "r"((uint64_t)(value)) : "memory")
#define csr_clear(name, value) __asm__ volatile("csrc " #name ", %0" : : "r"((uint64_t)(value)) : "memory")

enum { MODE_U = 0, MODE_S = 1, MODE_M = 3 };
enum {
    MSTATUS_MIE = 1 << 3,
    MSTATUS_MPP = 3 << 11,
    MSTATUS_MPRV = 1 << 17,
    MSTATUS_SUM = 1 << 18,
    MSTATUS_MXR = 1 << 19
};
enum { MIP_MSIP = 1 << 3, MIP_STIP = 1 << 5, MIP_MTIP = 1 << 7 };

/* --- console ------------------------------------------------------------------------------------------- */

void put_char(char c);
int get_char(void); /* -1: nothing there */
/* %s %c %d %u %x with l for 64 bits, widths with 0 for %x. One call is one piece: harts do not mix. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- clocks and power ---------------------------------------------------------------------------------- */

uint64_t rtc_ns(void); /* wall clock of the host */
uint64_t mtime(void);  /* guest time: TICKS_PER_S */
void mtimecmp_set(unsigned hart, uint64_t ticks);
void sleep_until(unsigned hart, uint64_t ticks); /* wfi on mtimecmp, M mode, interrupts off */

_Noreturn void power_off(void);
_Noreturn void power_off_failed(void);

/* --- harts --------------------------------------------------------------------------------------------- */

void msip_set(unsigned hart, bool on);
/* Hart 0: let the harts 1 .. harts-1 run entry(hart), once. */
void harts_start(unsigned harts, void (*entry)(unsigned hart));

struct spin {
    uint32_t held;
};
void spin_lock(struct spin *spin);
void spin_unlock(struct spin *spin);

/* All of `harts` come here before any goes on. Zero-initialised; may be used again. */
struct barrier {
    uint32_t arrived, generation;
};
void barrier_wait(struct barrier *barrier, unsigned harts);

/* --- device tree --------------------------------------------------------------------------------------- */

struct boot {
    unsigned harts;     /* cpu nodes */
    uint64_t ram_bytes; /* of /memory */
    const char *args;   /* /chosen/bootargs, "" when there is none */
};
struct boot boot_scan(const void *dtb);
/* "name=64M" -> 64 << 20 in `args`, else `missing`. Suffixes k M G. */
uint64_t arg_number(const char *args, const char *name, uint64_t missing);
/* Is "name=value" among the arguments? */
bool arg_is(const char *args, const char *name, const char *value);

/* --- traps --------------------------------------------------------------------------------------------- */

/* The frame that start.S makes: word n is register n, word 0 is mepc. */
struct trap_words {
    uint64_t reg[32]; /* [0]: mepc */
    uint64_t cause, value, status;
};

/* What the last trap of this hart was. expect_traps(true): a synchronous trap is recorded and the instruction
 * skipped (or, for fetch faults, the function of call_in_mode left); else it is reported and ends the guest. */
struct trap_record {
    uint64_t count, cause, pc, value, status;
    bool expected;
};
extern struct trap_record trap_record[HARTS_MAX];
static inline unsigned hart_self(void)
{
    unsigned hart;
    __asm__ volatile("mv %0, tp" : "=r"(hart));
    return hart;
}
void expect_traps(bool expected);
/* A hook sees every trap first; true: dealt with. */
extern bool (*trap_hook)(struct trap_words *words);

uint64_t call_in_mode(unsigned mode, uint64_t (*function)(uint64_t), uint64_t arg);
void pmp_open(void); /* S and U may touch everything */

/* --- self-checking tests ------------------------------------------------------------------------------- */

_Noreturn void test_failed(const char *name, int line);
_Noreturn void test_passed(const char *name);
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            test_failed(TEST_NAME, __LINE__);                                                                          \
    } while (0)
/* As CHECK, and says both values. */
#define CHECK_EQ(is, should)                                                                                           \
    do {                                                                                                               \
        uint64_t is_value = (uint64_t)(is), should_value = (uint64_t)(should);                                         \
        if (is_value != should_value) {                                                                                \
            print("%s: is 0x%lx, should be 0x%lx\n", #is, is_value, should_value);                                     \
            test_failed(TEST_NAME, __LINE__);                                                                          \
        }                                                                                                              \
    } while (0)

/* One instruction with two sources, or one, that the compiler cannot compute by itself. */
#define INSN2(name, a, b)                                                                                              \
    ({                                                                                                                 \
        uint64_t insn_result;                                                                                          \
        __asm__ volatile(name " %0, %1, %2" : "=r"(insn_result) : "r"((uint64_t)(a)), "r"((uint64_t)(b)));             \
        insn_result;                                                                                                   \
    })
#define INSN1(name, a)                                                                                                 \
    ({                                                                                                                 \
        uint64_t insn_result;                                                                                          \
        __asm__ volatile(name " %0, %1" : "=r"(insn_result) : "r"((uint64_t)(a)));                                     \
        insn_result;                                                                                                   \
    })
#define INSNI(name, a, immediate)                                                                                      \
    ({                                                                                                                 \
        uint64_t insn_result;                                                                                          \
        __asm__ volatile(name " %0, %1, " #immediate : "=r"(insn_result) : "r"((uint64_t)(a)));                        \
        insn_result;                                                                                                   \
    })
