/* A warm arrival: which code is hot goes ahead of the guest, and is translated where it is going to before it is there.
 *
 * The list of hot code, "godwit/hot-code" in a stream: be32 pages, and of each, in ascending order, be64 guest-physical address,
 * be16 entries (1 to 2048) and so many be16, ascending: places where code is entered, in units of 2 bytes from the page's start.
 * What a list says changes when code is made and nothing else: a wrong one costs time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct machine;

enum {
    WARM_PAGES_MAX = 4096,
    WARM_ENTRIES_MAX = 1 << 16,
    WARM_BYTES_MAX = 4 + WARM_PAGES_MAX * 10 + WARM_ENTRIES_MAX * 2
};

/* --- where the guest is; any thread ------------------------------------------------------------------------ */

bool machine_hot_begin(struct machine *m); /* note what runs from now on; false: no code is generated here */
void machine_hot_put(struct machine *m, struct buf *out); /* the list of what ran since; what is too much is left out */

/* --- where it is going to; the migration's thread ----------------------------------------------------------- */

/* A thread that makes code, and afterwards looks at how the guest started. None: everything else works as well. */
int machine_warm_begin(struct machine *m, struct err *err);
/* A list has come: check it and begin with what is there. -EPROTO and a sentence. The guest has not run; others load memory. */
int machine_warm_take(struct machine *m, const void *list, size_t bytes, struct err *err);
void machine_warm_again(struct machine *m); /* more memory has come: try again what was not there */
void machine_warm_stop(struct machine *m);  /* no more; does not wait */
/* All memory is there and nobody loads: end the making, drop what was made from other bytes. The harts are paused. */
void machine_warm_settle(struct machine *m);
void machine_warm_arrived(struct machine *m); /* it runs: look at it after 10 and 100 ms */
void machine_warm_end(struct machine *m);     /* end the thread; nothing when there is none */

/* --- how it started; any thread ----------------------------------------------------------------------------- */

/* Of all harts together, since the guest runs here. */
struct machine_start {
    int64_t after_ns; /* 0: it has not run so long */
    uint64_t instructions, tlb_refills;
    uint64_t block_runs; /* times that the interpreter had to run a block */
    uint64_t translated; /* regions of code made, not counting those that were made before */
    int64_t cpu_ns, translate_ns;
};

enum { MACHINE_STARTS = 2 };

struct machine_arrival {
    uint64_t listed, warmed, dropped; /* places in the list; regions made of them; of these, found to be other bytes */
    int64_t settle_ns;                /* for ending and comparing */
    struct machine_start start[MACHINE_STARTS]; /* after 10 and 100 ms */
};
void machine_arrival(struct machine *m, struct machine_arrival *out);
