/* What the files of this folder share: translations, the pages they came from, and the C that generated code calls. */
#pragma once
#include <stdatomic.h>

#include "base/lock.h"
#include "vcpu/engine.h"
#include "vcpu/jit/code.h"
#include "vcpu/jit/gen.h"
#include "vcpu/jit/jit.h"

enum {
    JIT_CODE_BYTES = 64 << 20,
    JIT_REGION_BYTES_MAX = 160 << 10, /* of host code: what must be free; test_gen knows the longest */
    JIT_THRESHOLD = 24,
    JIT_BUCKETS = 1 << 16,
    JIT_PAGE_BUCKETS = 1 << 12,
    JIT_META_BYTES = 64 << 20, /* address space; touched as used */
    JIT_YOUNG_MAX = 24,        /* pages worth a revocation */
};

/* A translated region. Lives until everything is flushed; a dead one is found by nobody, and its head leads elsewhere. */
struct translation {
    uint64_t gpa;
    _Atomic(struct translation *) next;               /* in its bucket */
    struct translation *page_next;                    /* on its page */
    const void *far_entry, *near_entry, *leave, *end; /* executable addresses */
    /* Of an instruction that crosses the end of its page: where the second half is, as this code believes and asks. */
    uint64_t tail_gpa;             /* 0: none */
    struct translation *tail_next; /* on the second half's page */
    uint16_t bytes;
    uint16_t page, tail_page; /* numbers of pages, for tlb.code_page; TLB_CODE_PAGES: too many, it has none */
    uint64_t made;            /* how many fence.i there had been */
    _Atomic uint32_t turn;    /* in which it was entered last (warm.c) */
    bool dead;
    uint16_t source[]; /* what it was made from */
};

/* A page that regions were made from. Is its CODE bit proof? Only when every hart has given up its write entries since
 * the page came to be watched, or since it was last found marked. Until then it is young: compared at every fence.i. */
struct code_page {
    uint64_t gpa, number;
    struct code_page *next;
    struct translation *first, *tails; /* that begin here; whose only instruction ends here */
    struct translation *buried;        /* that began here, and are dead */
    uint16_t changed, refused;         /* see pages_worth() */
    uint16_t index;                    /* in tlb.code_page, or TLB_CODE_PAGES */
    bool young, waiting;
    bool lost; /* should be young, but could not be remembered */
};

struct page_list {
    struct code_page **page;
    unsigned count, room;
};

struct jit {
    /* fixed after new */
    struct ram *ram;
    unsigned threshold;
    bool plain;
    struct lockstep *lockstep; /* NULL: engines are not compared */
    struct code code;
    _Atomic(struct translation *) *bucket; /* changed under lock, read by anybody */

    /* atomic */
    _Atomic uint32_t generation; /* raised by a flush of everything: no hart keeps an address of an older one */
    _Atomic uint32_t kills;      /* raised when regions died: no hart keeps a jump to them */
    _Atomic uint32_t turn;       /* raised by who wants to know what is hot: every hart asks for all code anew */
    _Atomic bool settled;   /* all code was compared since memory last changed unmarked, and no hart has run since */
    _Atomic uint64_t token; /* of the revocation that `waiting` waits for; 0: not begun */

    /* under lock */
    struct lock lock;
    struct gen *gen;
    uint8_t *meta;
    size_t meta_used;
    struct code_page *page_bucket[JIT_PAGE_BUCKETS];
    struct page_list young, waiting;
    unsigned code_pages; /* numbers given out */
    struct translation **by_address;
    unsigned translations, by_address_room;
    struct vcpu *vcpu[HART_MAX];
    unsigned vcpus, unacknowledged;
    bool flushing;
    struct jit_stats stats;
};

/* pages.c, under the lock */
bool pages_add(struct jit *jit, struct translation *t); /* false: no memory */
bool pages_watch(struct jit *jit, uint64_t gpa);        /* before its bytes are read; false: no memory */
void pages_forget(struct jit *jit);                     /* everything was flushed */
void pages_settle(struct jit *jit);                     /* compare all; no hart holds a write entry, none is young */
/* Is it worth translating now what lies at gpa? Not yet, where it changes all the time. */
bool pages_worth(struct jit *jit, uint64_t gpa);
unsigned pages_index(struct jit *jit, uint64_t gpa); /* of a watched page in tlb.code_page, or TLB_CODE_PAGES */

/* links.c */
void links_make(struct vcpu *v); /* the jump at v->jit_site led out of its region, to hart.pc */

/* jit.c */
void jit_kill(struct jit *jit, struct translation *t);
struct translation *jit_translation(struct vcpu *v, bool promote); /* as jit_find(), whatever jumps are known */
void jit_enter(struct vcpu *v, const void *code);                  /* as jit_run(), without linking */
struct translation *jit_lookup(struct vcpu *v, bool promote);      /* for hart.pc, by its mapping as of now */

/* calls.c: from generated code, on the vCPU's thread. False: leave generated code, hart.pc says where to. Arguments are
 * in struct vcpu. */
bool jit_access(struct vcpu *v); /* value: address, jit_operand: descriptor */
bool jit_interp(struct vcpu *v); /* jit_operand: the uop */
bool jit_fp(struct vcpu *v);     /* value: place in the page, jit_operand: retired */

void jit_fp_park(struct vcpu *v);   /* the guest's flags to the hart, the host's state to MXCSR */
bool jit_fp_unpark(struct vcpu *v); /* the other way round; false: this state is not for MXCSR */
