/* Calls of every kind: deep recursion, mutual recursion, tables of functions, computed jumps, arguments in a list, long jumps. */
#include <setjmp.h>
#include <stdarg.h>
#include "suite.h"

static unsigned ackermann(unsigned m, unsigned n)
{
    return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}

static int takeuchi(int x, int y, int z)
{
    return y >= x ? z : takeuchi(takeuchi(x - 1, y, z), takeuchi(y - 1, z, x), takeuchi(z - 1, x, y));
}

static unsigned queens(unsigned n, unsigned columns, unsigned left, unsigned right)
{
    unsigned found = 0, all = (1u << n) - 1, free_places = all & ~(columns | left | right);

    if (columns == all)
        return 1;
    while (free_places) {
        unsigned place = free_places & -free_places;

        free_places ^= place;
        found += queens(n, columns | place, (left | place) << 1, (right | place) >> 1);
    }
    return found;
}

typedef uint64_t (*step)(uint64_t value, unsigned depth);

static uint64_t turn(uint64_t value, unsigned depth);
static uint64_t add(uint64_t value, unsigned depth)
{
    return depth ? turn(value + depth * 0x9e37u, depth - 1) : value;
}
static uint64_t mix(uint64_t value, unsigned depth)
{
    return depth ? turn(value ^ value << 9, depth - 1) + 1 : value;
}
static uint64_t fold(uint64_t value, unsigned depth)
{
    return depth ? turn(value >> 1 | value << 63, depth - 1) ^ depth : ~value;
}
static uint64_t leaf(uint64_t value, unsigned depth)
{
    return value * 3 + depth;
}
static const step steps[] = { add, mix, fold, add, mix, leaf, fold, add };

static uint64_t turn(uint64_t value, unsigned depth)
{
    return steps[(value ^ depth) % (sizeof(steps) / sizeof(steps[0]))](value, depth);
}

static uint64_t many(unsigned n, ...)
{
    uint64_t sum = 0;
    va_list list;

    va_start(list, n);
    for (unsigned i = 0; i < n; i++) {
        if (i % 3 == 2)
            take_double(&sum, va_arg(list, double));
        else
            take(&sum, i % 3 ? (uint64_t)va_arg(list, int) : va_arg(list, uint64_t));
    }
    va_end(list);
    return sum;
}

/* A small machine of its own, by computed jumps. */
static uint64_t interpret(const unsigned char *code, uint64_t a)
{
    static const void *const at[] = { &&o_end, &&o_add, &&o_shift, &&o_mul, &&o_loop };
    uint64_t turns = 500;
    const unsigned char *pc = code;

    goto *at[*pc];
o_add:
    a += ++pc - code + 17;
    goto *at[*pc];
o_shift:
    a ^= a >> 11;
    goto *at[*++pc];
o_mul:
    a *= 0x5851f42d4c957f2du;
    goto *at[*++pc];
o_loop:
    pc = --turns ? code : pc + 1;
    goto *at[*pc];
o_end:
    return a;
}

static jmp_buf out;

static void dive(unsigned depth, int jump, volatile unsigned *deepest)
{
    char space[256];

    memset(space, (int)depth, sizeof(space));
    *deepest = depth + (unsigned char)space[depth % sizeof(space)];
    if (depth == 700) {
        if (jump)
            longjmp(out, (int)*deepest);
        return;
    }
    dive(depth + 1, jump, deepest);
    if (space[3] != (char)depth)
        *deepest = 0;
}

static void jumps(uint64_t *sum)
{
    volatile unsigned turns = 0;
    unsigned deepest = 0;
    double kept = 1.0 / 3;
    int code = setjmp(out);

    take(sum, (uint64_t)code + turns);
    if (++turns < 50) {
        dive(turns * 5, 0, &deepest);
        take(sum, deepest);
        dive(turns * 3, 1, &deepest);
    }
    take_double(sum, kept + turns);
}

int main(void)
{
    static const unsigned char code[] = { 1, 2, 3, 1, 1, 2, 4, 3, 0 };
    uint64_t sum = 0, state = 4768777513237032717u;

    take(&sum, ackermann(2, 600) + ackermann(3, 7));
    take(&sum, (uint64_t)takeuchi(16, 10, 4));
    take(&sum, queens(9, 0, 0, 0));
    for (int i = 0; i < 30000; i++)
        take(&sum, turn(next_number(&state), 40));
    for (int i = 0; i < 2000; i++)
        take(&sum, many(12, state, i, 0.5 * i, sum, -i, 1e9 / (i + 1), state >> 3, i * i, 2.0, ~sum, 7, -0.25 * i));
    for (int i = 0; i < 300; i++)
        take(&sum, interpret(code, sum));
    jumps(&sum);
    return say("calls", sum);
}
