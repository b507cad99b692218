/* Runs the random instruction blocks that rand_isa.py made, each often enough to be hot, and prints what it left behind:
 * registers, flags, a hash of its memory and of the traps it took, and one over all turns. Two machines are right when they print the same. */
#include "lib.h"

enum { WINDOW_WORDS = 1024, TURNS = 60, CAUSE_ILLEGAL = 2, CAUSE_BREAK = 3, CAUSE_ECALL_M = 11 };

struct state {
    uint64_t x[32]; /* [0] is unused, [30] is the window's middle */
    uint64_t f[32];
    uint64_t fcsr;
};

struct block {
    void (*code)(void);
    const uint64_t *initial; /* x1..x31, f0..f31, fcsr */
};

extern const struct block rand_block[];
extern const uint64_t rand_blocks;
extern char rand_return[];
void rand_run(void (*code)(void), struct state *state);

struct state *rand_state;
uint64_t rand_sp;
static struct state state;
static uint64_t window[WINDOW_WORDS] __attribute__((aligned(4096)));
static uint64_t traps, traps_hash;

/* The block is code of its own: a1 holds the state until everything is loaded. What the block leaves in x is taken
 * from the frame of the trap that its last instruction is. */
__asm__(".text\n .global rand_run, rand_return\n"
        "rand_run:\n addi sp, sp, -112\n sd ra, 0(sp)\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11\n sd s\\n, 8*\\n+8(sp)\n .endr\n"
        "la t0, rand_sp\n sd sp, 0(t0)\n la t0, rand_state\n sd a1, 0(t0)\n csrw mepc, a0\n"
        "li t0, 0x1800\n csrs mstatus, t0\n ld t0, 512(a1)\n csrw fcsr, t0\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "fld f\\n, 256+8*\\n(a1)\n .endr\n"
        ".irp n, 1,5,6,7,8,9,10,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "ld x\\n, 8*\\n(a1)\n .endr\n ld a1, 88(a1)\n mret\n"
        "rand_return:\n la t0, rand_sp\n ld sp, 0(t0)\n la t0, rand_state\n ld a1, 0(t0)\n"
        "csrr t0, fcsr\n sd t0, 512(a1)\n"
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "fsd f\\n, 256+8*\\n(a1)\n .endr\n"
        "ld ra, 0(sp)\n .irp n, 0,1,2,3,4,5,6,7,8,9,10,11\n ld s\\n, 8*\\n+8(sp)\n .endr\n"
        "addi sp, sp, 112\n ret\n");

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    return hash ^ hash >> 29;
}

static bool take(struct trap_words *words)
{
    uint64_t pc = words->reg[0];

    if (words->cause == CAUSE_ECALL_M) {
        for (unsigned i = 1; i < 32; i++)
            state.x[i] = words->reg[i];
        words->reg[0] = (uint64_t)rand_return;
        return true;
    }
    traps++;
    /* For illegal instructions and breakpoints a machine may tell zero or a value. */
    bool telling = words->cause != CAUSE_ILLEGAL && words->cause != CAUSE_BREAK;
    traps_hash = mix(mix(mix(traps_hash, words->cause), pc), telling ? words->value : 0);
    words->reg[0] = pc + ((*(const uint16_t *)pc & 3) == 3 ? 4 : 2);
    return true;
}

/* Once from the block's registers; what earlier turns did to memory stays. */
static uint64_t turn(uint64_t n, uint64_t hash)
{
    const uint64_t *from = rand_block[n].initial;

    for (unsigned i = 1; i < 32; i++)
        state.x[i] = *from++;
    for (unsigned i = 0; i < 32; i++)
        state.f[i] = *from++;
    state.fcsr = *from;
    state.x[30] = (uint64_t)&window[WINDOW_WORDS / 2];
    rand_run(rand_block[n].code, &state);
    for (unsigned i = 0; i < 32; i++)
        hash = mix(mix(hash, i && i != 2 && i != 3 && i != 4 ? state.x[i] : 0), state.f[i]);
    return mix(hash, state.fcsr);
}

static void run(uint64_t n)
{
    uint64_t hash = n, turns_hash = 0;

    for (unsigned i = 0; i < WINDOW_WORDS; i++)
        window[i] = mix(n, i) >> (i % 4 * 16);
    traps = traps_hash = 0;
    for (unsigned i = 0; i < TURNS; i++)
        turns_hash = turn(n, turns_hash);

    for (unsigned i = 0; i < WINDOW_WORDS; i++)
        hash = mix(hash, window[i]);
    print("B %lu memory %016lx fcsr %lx traps %lu %016lx turns %016lx\n", n, hash, state.fcsr, traps, traps_hash,
          turns_hash);
    for (unsigned i = 0; i < 32; i += 4)
        print("B %lu x%u %016lx %016lx %016lx %016lx\n", n, i, i ? state.x[i] : 0, state.x[i + 1],
              i ? state.x[i + 2] : 0, i ? state.x[i + 3] : 0);
    for (unsigned i = 0; i < 32; i += 4)
        print("B %lu f%u %016lx %016lx %016lx %016lx\n", n, i, state.f[i], state.f[i + 1], state.f[i + 2],
              state.f[i + 3]);
}

int main(void)
{
    trap_hook = take;
    for (uint64_t n = 0; n < rand_blocks; n++)
        run(n);
    print("END %lu blocks\n", rand_blocks);
    power_off();
}
