/* One guest access to host memory: a relaxed atomic of its natural size when aligned; when not, the ISA promises no
 * atomicity and the host's unaligned move serves. */
#pragma once
#include <stdint.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(GODWIT_NO_TAIL_CALLS)
#define GUEST_ALIGNED(type, p) (((uintptr_t)(p) & (sizeof(type) - 1)) == 0)
#else
#define GUEST_ALIGNED(type, p) 1 /* the same host instruction either way */
#endif

/* Byte by byte, still atomic: what a sanitized build does with a misaligned access. */
static inline uint64_t guest_load_bytes(const uint8_t *host, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)__atomic_load_n(host + i, __ATOMIC_RELAXED) << 8 * i;
    return value;
}

static inline void guest_store_bytes(uint8_t *host, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        __atomic_store_n(host + i, (uint8_t)(value >> 8 * i), __ATOMIC_RELAXED);
}

#define GUEST_ACCESS(type, suffix)                                                                                     \
    static inline __attribute__((no_sanitize("alignment"))) type guest_load_##suffix(const uint8_t *host)              \
    {                                                                                                                  \
        if (GUEST_ALIGNED(type, host))                                                                                 \
            return __atomic_load_n((const type *)(const void *)host, __ATOMIC_RELAXED);                                \
        return (type)guest_load_bytes(host, sizeof(type));                                                             \
    }                                                                                                                  \
    static inline __attribute__((no_sanitize("alignment"))) void guest_store_##suffix(uint8_t *host, type value)       \
    {                                                                                                                  \
        if (GUEST_ALIGNED(type, host))                                                                                 \
            __atomic_store_n((type *)(void *)host, value, __ATOMIC_RELAXED);                                           \
        else                                                                                                           \
            guest_store_bytes(host, sizeof(type), value);                                                              \
    }

GUEST_ACCESS(uint8_t, 8)
GUEST_ACCESS(uint16_t, 16)
GUEST_ACCESS(uint32_t, 32)
GUEST_ACCESS(uint64_t, 64)

static inline uint64_t guest_load(const uint8_t *host, unsigned bytes)
{
    switch (bytes) {
    case 1: return guest_load_8(host);
    case 2: return guest_load_16(host);
    case 4: return guest_load_32(host);
    default: return guest_load_64(host);
    }
}

static inline void guest_store(uint8_t *host, unsigned bytes, uint64_t value)
{
    switch (bytes) {
    case 1: guest_store_8(host, (uint8_t)value); break;
    case 2: guest_store_16(host, (uint16_t)value); break;
    case 4: guest_store_32(host, (uint32_t)value); break;
    default: guest_store_64(host, value); break;
    }
}
