/* Integer arithmetic of every width: products and quotients to 128 bits, shifts, rotations, counts of bits, a CRC, a block hash. */
#include "suite.h"

static uint32_t crc_table[256];

static void fill_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t crc(const uint8_t *bytes, size_t n)
{
    uint32_t c = ~0u;

    while (n--)
        c = crc_table[(c ^ *bytes++) & 255] ^ (c >> 8);
    return ~c;
}

static void divisions(uint64_t *sum, uint64_t a, uint64_t b)
{
    int64_t sa = (int64_t)a, sb = (int64_t)b | 1;
    uint64_t ub = b | 1;

    if (sb == -1)
        sb = 3; /* the least number by -1 is not defined in C */
    take(sum, (uint64_t)(sa / sb));
    take(sum, (uint64_t)(sa % sb));
    take(sum, a / ub);
    take(sum, a % ub);
    take(sum, (uint32_t)a / ((uint32_t)b | 1));
    take(sum, (uint64_t)(int64_t)((int32_t)(a >> 33) / ((int32_t)(b >> 40) | 1)));
    take(sum, (uint64_t)(int64_t)((int16_t)a % ((int16_t)(b >> 50) | 1)));
    take(sum, (uint64_t)(((unsigned __int128)a << 37 | b) / (ub >> 5 | 1)));
}

static void products(uint64_t *sum, uint64_t a, uint64_t b)
{
    take(sum, (uint64_t)(((__int128)(int64_t)a * (int64_t)b) >> 64));
    take(sum, (uint64_t)(((unsigned __int128)a * b) >> 64));
    take(sum, (uint64_t)(((__int128)(int64_t)a * b) >> 64));
    take(sum, (uint32_t)a * (uint32_t)b);
    take(sum, a * b);
}

static void bits(uint64_t *sum, uint64_t a, uint64_t b)
{
    unsigned n = b & 63;

    take(sum, a << n | a >> (-n & 63));
    take(sum, (uint64_t)((int64_t)a >> n));
    take(sum, (uint32_t)a << (n & 31) | (uint32_t)a >> (-n & 31));
    take(sum, (uint64_t)(int64_t)((int32_t)a >> (n & 31)));
    take(sum, (uint64_t)__builtin_clzll(a | 1) << 16 | (uint64_t)__builtin_ctzll(a | 1ull << 63) << 8 |
                  (uint64_t)__builtin_popcountll(a));
    take(sum, __builtin_bswap64(a) ^ __builtin_bswap32((uint32_t)b) ^ __builtin_bswap16((uint16_t)b));
    take(sum, (a & ~b) + (a | ~b) + (a ^ ~b));
    take(sum, (int64_t)a < (int64_t)b ? a : b);
    take(sum, (uint64_t)(int64_t)(int8_t)a + (uint16_t)b + (uint64_t)(int64_t)(int32_t)(a >> 7));
}

int main(void)
{
    static uint8_t buffer[1 << 16];
    uint64_t sum = 0, state = 88172645463325252u;

    for (int i = 0; i < 200000; i++) {
        uint64_t a = next_number(&state), b = next_number(&state) >> (i & 63);

        products(&sum, a, b);
        divisions(&sum, a, b);
        bits(&sum, a, b);
    }
    fill_crc_table();
    for (size_t i = 0; i < sizeof(buffer); i++)
        buffer[i] = (uint8_t)next_number(&state);
    for (int i = 0; i < 40; i++) {
        buffer[i * 17] ^= (uint8_t)i;
        take(&sum, crc(buffer + i, sizeof(buffer) - (size_t)i));
    }
    return say("integer", sum);
}
