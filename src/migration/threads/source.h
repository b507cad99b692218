/* A source: numbered units of one size that may become dirty again. RAM is one, every disk is one.
 *
 * The street knows nothing else of a guest. Units are counted in words of 64: one word is one chunk. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { SOURCE_NAME_MAX = 64, SOURCE_UNIT_BYTES_MAX = 4096, CHUNK_UNITS = 64 };

struct source;

struct source_ops {
    /* --- sending; any worker thread --- */
    /* next word >= `word` that may have a dirty unit, or words when none */
    uint64_t (*next)(struct source *source, uint64_t word);
    /* clear and return the word's dirty units; they may be read after a revoke begun later was waited for */
    uint64_t (*take)(struct source *source, uint64_t word);
    uint64_t (*revoke_begin)(struct source *source);
    void (*revoke_wait)(struct source *source, uint64_t token);
    /* copy one unit out, into memory aligned to 64 bytes; may race with the guest's stores; 0 or -errno (disks) */
    int (*copy)(struct source *source, uint64_t unit, void *out);
    uint64_t (*dirty)(struct source *source); /* units dirty now */
    /* which of a word's units are known to be zero without a look at them: as copy(), after the revoke. NULL: none */
    uint64_t (*blank)(struct source *source, uint64_t word);
    /* As copy(), for all these units of a word, one behind the other: where each reading costs a call of the host's. NULL: copy
     * them one by one. Such a source's units travel whole, never as deltas; it stands behind those without. */
    int (*fetch)(struct source *source, uint64_t word, uint64_t units, void *out);
    /* --- loading; any load thread; each unit belongs to one thread at a time --- */
    /* these units of a word are about to be stored: get the memory for all of them at once. NULL: nothing to prepare */
    void (*expect)(struct source *source, uint64_t word, uint64_t units);
    int (*store)(struct source *source, uint64_t unit, const void *data); /* 0 or -errno */
    /* so many units from this one on, at once; 0 or -errno. NULL: store() each */
    int (*store_run)(struct source *source, uint64_t unit, unsigned count, const void *data);
    int (*zero)(struct source *source, uint64_t unit); /* touches nothing where memory is fresh */
    /* what is there now, for the digest, after the store: pointer valid until the unit is stored again */
    const void *(*peek)(struct source *source, uint64_t unit, void *scratch);
    /* which of a word's 64 units exist: short last word, holes */
    uint64_t (*exists)(struct source *source, uint64_t word);
};

struct source {
    const struct source_ops *ops;
    /* fixed after new */
    uint32_t id;                /* section id on the wire, from 1 */
    char name[SOURCE_NAME_MAX]; /* section name: "godwit/ram" */
    uint64_t units, words;      /* words = units / 64 rounded up */
    uint32_t unit_bytes;        /* 4096 */
};
