/* XXH3 of much memory, by the widest registers that this host has: every byte on its way is hashed twice on either side. */
#pragma once
#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed); /* XXH3, 64 bits */
/* XXH3, 128 bits, with a secret of at least 136 bytes; the low half first */
void hash_bytes_keyed(const void *data, size_t bytes, const void *secret, size_t secret_bytes, uint64_t out[2]);
/* Once, before several threads hash: the library finds out about the host with its first call, without a lock. */
void hash_prepare(void);
