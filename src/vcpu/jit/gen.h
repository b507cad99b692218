/* The code generator's inside: from one region of guest code to host code, instruction by instruction.
 *
 * A region is straight guest code in one page, with the branches that stay inside it. Register plan: ten guest
 * registers live in host registers while generated code runs, all others in struct hart; RAX, RCX, RDX are free between
 * any two guest instructions; RBP points into struct vcpu, R15 to the present mode's TLB; XMM15 counts retired
 * instructions (an add there costs no integer port and no flags). XMM2 to XMM13 hold copies of f registers (gen_fp.h).
 *
 * Owner: the thread that translates, under the code cache's lock. */
#pragma once
#include <stddef.h>

#include "vcpu/decode.h"
#include "vcpu/engine.h"
#include "vcpu/jit/code.h"
#include "vcpu/jit/emit.h"

enum {
    GEN_INSNS_MAX = 128,
    GEN_STUBS_MAX = 4 * GEN_INSNS_MAX,
    GEN_LAZY_MAX = 8,
    GEN_VCPU = RBP, /* struct vcpu + GEN_VCPU_BIAS, so that all of x[] is within a byte's displacement */
    GEN_VCPU_BIAS = 128,
    GEN_TLB = R15,
    GEN_COUNT = 15,   /* XMM */
    GEN_FP_FIRST = 2, /* the XMM registers that hold copies of guest registers; 0, 1 and 14 are scratch */
    GEN_FP_REGS = 12,
    GEN_FP_LOOP_REGS = 6, /* of them, how many a loop keeps from one time around to the next */
};

/* A link to another page begins with an aligned jump out, to be replaced by what asks first (links.c). Behind its five
 * bytes stand, from the beginning: where the displacement of the jump to the target is, and where no target is known. */
enum { LINK_HEAD_BYTES = 8, LINK_TAIL = 5, LINK_FAR = 6 };

/* What an out-of-line piece at the end of the region does. */
enum stub_kind {
    STUB_ACCESS,  /* a load or store missed: a = descriptor, reg = where its address is; goes on at `back` */
    STUB_NEAR,    /* a near slot missed: asks the array, and fills the slot; b = the slot, as above from there */
    STUB_RUN,     /* a run of accesses cannot be had with one check: insn[at..a), one by one; goes on at `back` */
    STUB_SIDE,    /* a branch leaves the region: a = displacement in page, b = retired */
    STUB_LEAVE,   /* somebody wants the hart: a = displacement, b = retired */
    STUB_FP,      /* floating point is not ready: goes on at `back`, or leaves */
    STUB_FP_READ, /* floating point may not be ready to be changed: goes on at `back` if it can be made so unseen,
                     else the interpreter does the instruction, and it goes on at `end` */
    STUB_INTERP, /* the instruction at `at`, by the interpreter, on a rare path: b = retired with it; goes on at `back` */
};

struct stub {
    enum stub_kind kind;
    uint8_t *site; /* displacement to bind to the stub; with gen_also, the last of a chain */
    uint8_t *back, *end;
    uint8_t *hit; /* STUB_NEAR: where RDX is the addend */
    uint32_t a, b;
    int reg;
    int8_t fp[GEN_FP_REGS];             /* f registers that the code at `back` expects in XMM; see gen_back() */
    unsigned at;                        /* index of the instruction that wanted it */
    uint8_t lazy[GEN_LAZY_MAX], lazies; /* as in struct gen */
};

/* The copies of f registers. Memory (struct hart) always holds them too, so nothing is to be written back on any way
 * out; a call of C loses them. */
struct gen_fp_copies {
    int8_t f[GEN_FP_REGS];    /* or GEN_FP_NONE */
    bool single[GEN_FP_REGS]; /* only the low 32 bits are there */
    unsigned used[GEN_FP_REGS], now;
    uint32_t boxed;           /* f registers known to hold boxed singles */
    struct stub *redo, *read; /* of the instruction in hand */
};

enum { GEN_FP_NONE = -1, GEN_NEAR_NONE = -1, GEN_EXCHANGES_MAX = 10 };

/* In this region a host register holds another guest register than between regions. */
struct gen_exchange {
    int host;
    unsigned common, own;
};

/* What the code at the head of a loop finds in the first places. */
struct gen_fp_loop {
    uint8_t count, f[GEN_FP_LOOP_REGS];
    bool single[GEN_FP_LOOP_REGS];
};

struct gen {
    struct emit e;
    const struct code *code;
    bool one_hart; /* nobody else's stores to meet: guest atomics are plain */
    bool lockstep; /* only what may run twice: no atomics, fences, CSRs but floating point's */

    /* the region */
    unsigned page_off; /* of the first instruction */
    unsigned bytes, count;
    struct insn insn[GEN_INSNS_MAX];
    uint16_t off[GEN_INSNS_MAX + 1]; /* in the page; one more: where the region ends */
    bool target[GEN_INSNS_MAX];      /* some branch of the region leads here */
    uint8_t skip[GEN_INSNS_MAX];     /* a branch over so many instructions that becomes a conditional move, or 0 */
    bool bridged[GEN_INSNS_MAX];     /* a target that only such a branch leads to */
    bool unseen[GEN_INSNS_MAX];      /* nobody looks at the upper half of its result: it may be wrong */
    unsigned tail_page;              /* number of the page where the only instruction ends; or TLB_CODE_PAGES */
    bool falls_off;                  /* the last instruction is followed by what is not in the region */

    int host_of[32]; /* guest registers in this region; HOST_NONE: in struct hart */
    struct gen_exchange exchange[GEN_EXCHANGES_MAX];
    unsigned exchanges;
    struct gen_fp_loop loop[GEN_INSNS_MAX]; /* by the index of its first instruction */
    int near[32];                           /* slots of base registers, or GEN_NEAR_NONE */

    /* progress */
    unsigned at;      /* index of the instruction in hand */
    unsigned retired; /* instructions done that XMM15 does not know of yet */
    bool fp_ready;    /* checked on every way that leads here */
    struct gen_fp_copies fp;
    uint32_t words; /* x registers known to hold sign-extended 32-bit values */
    unsigned kept;  /* RAX holds this guest register too, if e.at is still kept_at */
    const uint8_t *kept_at;
    uint8_t lazy[GEN_LAZY_MAX], lazies; /* shifts put off, by index (gen_lazy.c) */
    bool in_skip;                       /* what is generated may run in vain */
    bool in_run;                        /* RDX is the addend of the run's page */
    uint8_t *label[GEN_INSNS_MAX];      /* of targets */
    uint8_t *forward[GEN_INSNS_MAX];    /* branches waiting for a label, chained through their displacements */
    struct stub stub[GEN_STUBS_MAX];
    unsigned stubs;
    struct {
        uint8_t *site;
        unsigned index;
    } uop[GEN_STUBS_MAX]; /* instructions for the interpreter, laid out behind the code */
    unsigned uops;
    uint8_t *far_entry, *near_entry, *leave;
};

/* What this host's CPU has beyond x86-64's base; found once, by gen_find_features(). */
extern struct gen_features {
    bool bmi2, lzcnt, bmi, popcnt, fma, sse41;
} gen_features;
void gen_find_features(void);

#define GEN_FIELD(member) op_mem(GEN_VCPU, (int32_t)offsetof(struct vcpu, member) - GEN_VCPU_BIAS)

/* --- registers ------------------------------------------------------------------------------------------- */

extern const int gen_pinned[32]; /* host register of a guest register between regions, or HOST_NONE */

void gen_common_registers(struct gen *g); /* host_of as between regions */
void gen_choose_registers(struct gen *g); /* and as is best for the region; then: */
void gen_to_own(struct gen *g);           /* from the one to the other; flags, RAX, RCX and RDX stay */
void gen_to_common(struct gen *g);

static inline struct operand gen_home(unsigned x)
{
    return op_mem(GEN_VCPU, (int32_t)(offsetof(struct vcpu, hart.x) + 8 * x) - GEN_VCPU_BIAS);
}

static inline struct operand gen_fhome(unsigned f)
{
    return op_mem(GEN_VCPU, (int32_t)(offsetof(struct vcpu, hart.f) + 8 * f) - GEN_VCPU_BIAS);
}

/* In the TLB. */
static inline int32_t gen_code_page(unsigned number)
{
    return (int32_t)(offsetof(struct tlb, code_page) + sizeof(uint64_t) * number);
}

/* Where guest x lives; not for x0. */
static inline struct operand gen_loc(const struct gen *g, unsigned x)
{
    return g->host_of[x] != HOST_NONE ? op_reg(g->host_of[x]) : gen_home(x);
}

int gen_use(struct gen *g, unsigned x, int temp);  /* a register that holds x: its own, or temp after a load */
void gen_load(struct gen *g, int reg, unsigned x); /* reg = x, x0 included */
/* Where to compute x; then gen_done(). */
static inline int gen_dest(const struct gen *g, unsigned x, int temp)
{
    return g->host_of[x] != HOST_NONE ? g->host_of[x] : temp;
}
void gen_done(struct gen *g, unsigned x, int reg);

void gen_keep(struct gen *g, unsigned x);          /* RAX holds x, and whatever comes here comes with it */
bool gen_is_kept(const struct gen *g, unsigned x); /* RAX holds x */
bool gen_is_word(const struct gen *g, unsigned x); /* x is known to be sign-extended from 32 bits */
void gen_find_unseen(struct gen *g);               /* fills unseen[] */
bool gen_writes_f(const struct insn *insn);        /* rd is an f register */
unsigned gen_reads(const struct insn *insn,
                   unsigned x[2]); /* how many, of plain instructions; the rest read through C */
bool gen_writes_x(const struct insn *insn, unsigned x);
void gen_note_written(struct gen *g, const struct insn *insn);

/* --- the parts; each returns false when the instruction is the interpreter's ------------------------------ */

bool gen_int(struct gen *g, const struct insn *insn);
bool gen_bits(struct gen *g, const struct insn *insn); /* Zba, Zbb, Zbs */
bool gen_mem(struct gen *g, const struct insn *insn);
unsigned gen_run(struct gen *g); /* begins a run of accesses off one base: instructions in it, or 0: there is none */
bool gen_atomic(struct gen *g, const struct insn *insn);
bool gen_fp(struct gen *g, const struct insn *insn);
bool gen_system(struct gen *g, const struct insn *insn);              /* CSRs that are only read or written */
bool gen_flow(struct gen *g, const struct insn *insn);                /* branches and jumps */
enum host_cond gen_compare(struct gen *g, const struct insn *branch); /* RAX is lost; returns when it is taken */
bool gen_keeps_rdx(const struct insn *insn); /* plain arithmetic that gen_int() does without RDX */

/* Shifts that wait (gen_lazy.c). */
void gen_lazy_before(struct gen *g, const struct insn *insn);  /* what insn reads or spoils is made good */
bool gen_lazy(struct gen *g, const struct insn *insn);         /* it waits too, or they are a rotation: it is done */
void gen_lazy_written(struct gen *g, const struct insn *insn); /* what waited for insn's register never comes */
void gen_lazy_all(struct gen *g);                              /* none waits any more */
void gen_lazy_in_stub(struct gen *g, const struct stub *stub); /* those wait that did when the stub was made */

/* What a branch skips (gen_skip.c): begin, generate the skipped instructions, end. They may not touch RDX, and RDX is rd. */
struct gen_skip {
    unsigned branch, rd, retired;
    int host; /* rd's */
    uint32_t words;
};
void gen_find_skips(struct gen *g); /* fills skip[] and bridged[] */
void gen_skip_begin(struct gen *g, struct gen_skip *skip);
void gen_skip_end(struct gen *g, const struct gen_skip *skip);

/* Two instructions at once, or false. */
bool gen_pair(struct gen *g, const struct insn *first, const struct insn *second);

/* --- for the parts --------------------------------------------------------------------------------------- */

void gen_flush_count(struct gen *g);                               /* XMM15 += retired; keeps the flags */
void gen_lea_count(struct gen *g, int reg, unsigned instructions); /* reg = where in memory so many stand for XMM15 */
void gen_add_count(struct gen *g, unsigned instructions);          /* XMM15 += instructions */
struct stub *gen_stub(struct gen *g, enum stub_kind kind, uint8_t *site);
/* The instruction in hand may turn out to be the interpreter's: `site` jumps out for that, and so does each site of
 * gen_also(). Nothing that the guest can see may have been changed yet. The caller ends it by gen_back(), with
 * everything done, before g->retired counts the instruction. */
struct stub *gen_rarely(struct gen *g, uint8_t *site);
void gen_also(struct gen *g, struct stub *stub, uint8_t *site);
void gen_back(struct gen *g, struct stub *stub);
void gen_page_va(struct gen *g, int reg);            /* reg = virtual address of the page */
void gen_interp(struct gen *g);                      /* the instruction in hand, by the interpreter */
void gen_call_interp(struct gen *g, unsigned index); /* insn[index]; the count includes it already */
void gen_jump_far(struct gen *g);                    /* to the virtual address in RAX; clobbers RCX */
void gen_link(struct gen *g, int64_t page_off);      /* to a place in the page or out of it; count is flushed */
void gen_leave_check(struct gen *g, int64_t page_off, unsigned retired); /* goes on unless somebody wants the hart */
int gen_label_of(const struct gen *g, int64_t page_off);                 /* index of the instruction there, or -1 */
int gen_leads(const struct gen *g, unsigned i); /* where in the region a branch or jump leads, or -1 */

/* Descriptor of a memory access for the slow path (jit_access). */
enum {
    ACCESS_RETIRED = 12, /* page offset below */
    ACCESS_SIZE = 20,    /* log2 of the bytes */
    ACCESS_SIGNED = 22,
    ACCESS_STORE = 23,
    ACCESS_FP = 24,
    ACCESS_REG = 25,
};
void gen_choose_near(struct gen *g);
void gen_near(struct gen *g, const struct stub *stub); /* STUB_NEAR's own part */
uint32_t gen_access(const struct gen *g, unsigned size, bool is_signed, bool store, bool fp, unsigned reg);
/* Where in host memory insn's bytes are, valid until RAX, RCX or RDX change. The caller calls gen_back() for *stub. */
struct operand gen_reach(struct gen *g, const struct insn *insn, unsigned bytes, bool store, uint32_t access,
                         struct stub **stub);

/* Whoever calls C on the straight path has lost the copies of f registers (gen_call_interp() says so itself). */
void gen_fp_forget(struct gen *g);
void gen_fp_reload(struct gen *g, const struct stub *stub);
void gen_fp_choose_loops(struct gen *g);
void gen_fp_settle(struct gen *g, unsigned label); /* in front of a jump there: copies as expected; changes flags not */
void gen_fp_arrive(struct gen *g, unsigned label); /* behind the label */

/* The region at `host` (its first byte, page_off in its page) into g. Returns false when not one instruction fits. */
bool gen_decode(struct gen *g, const uint8_t *host, unsigned page_off);
/* The one instruction that begins with the last two bytes of a page; its other half is in the page `tail_page`
 * (tlb.code_page). */
void gen_decode_crossing(struct gen *g, uint32_t raw, unsigned tail_page);
/* Generates; false when the buffer is full. */
bool gen_region(struct gen *g);
