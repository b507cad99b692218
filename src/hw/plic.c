/* PLIC (RISC-V Platform-Level Interrupt Controller specification 1.0.0): 95 level-triggered sources.
 *
 * Gateway: a high wire makes its source pending; from claim to completion it makes nothing pending; if the wire
 * is still high at completion, it is pending again. A wire that falls takes no request back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"

enum { PLIC_WORDS = PLIC_SOURCES / 32, PLIC_PRIORITY_MAX = 7, PLIC_BYTES = 0x600000 };
enum {
    REG_PRIORITY = 0x0,
    REG_PENDING = 0x1000,
    REG_ENABLE = 0x2000,
    ENABLE_STRIDE = 0x80,
    REG_CONTEXT = 0x200000,
    CONTEXT_STRIDE = 0x1000,
    CONTEXT_THRESHOLD = 0,
    CONTEXT_CLAIM = 4,
};

struct plic_context {
    uint32_t enable[PLIC_WORDS];
    uint32_t threshold;
};

struct plic_state {
    uint32_t priority[PLIC_SOURCES];
    uint32_t level[PLIC_WORDS];   /* wires */
    uint32_t pending[PLIC_WORDS]; /* requested, not yet claimed */
    uint32_t claimed[PLIC_WORDS]; /* between claim and completion */
    struct plic_context context[PLIC_CONTEXTS_MAX];
};

struct plic {
    struct device dev;
    /* fixed after new */
    unsigned contexts;
    struct irq_line out[PLIC_CONTEXTS_MAX];
    /* under dev.lock (rank IRQCHIP: devices pull wires holding their own) */
    struct plic_state state;
    bool out_level[PLIC_CONTEXTS_MAX]; /* as last told to the hart */
};

static const struct field plic_context_fields[] = {
    FIELD_U32_ARRAY_OF(struct plic_context, enable),
    FIELD_U32_MAX_OF(struct plic_context, threshold, PLIC_PRIORITY_MAX),
    FIELD_TABLE_END,
};

static const struct field plic_fields[] = {
    { "priority", FIELD_U32, offsetof(struct plic_state, priority), PLIC_SOURCES, 1, 0, PLIC_PRIORITY_MAX, NULL, 0 },
    FIELD_U32_ARRAY_OF(struct plic_state, level),
    FIELD_U32_ARRAY_OF(struct plic_state, pending),
    FIELD_U32_ARRAY_OF(struct plic_state, claimed),
    FIELD_STRUCTS_OF(struct plic_state, context, PLIC_CONTEXTS_MAX, plic_context_fields),
    FIELD_TABLE_END,
};

static int plic_validate(const void *object, struct err *err)
{
    const struct plic_state *s = object;
    if ((s->level[0] | s->pending[0] | s->claimed[0]) & 1)
        return err_set(err, -EPROTO, "source 0 does not exist but is raised");
    for (unsigned w = 0; w < PLIC_WORDS; w++)
        if (s->pending[w] & s->claimed[w])
            return err_set(err, -EPROTO, "sources %#x of word %u are pending and claimed at once",
                           s->pending[w] & s->claimed[w], w);
    return 0;
}

static const struct state_desc plic_desc = {
    .name = "godwit/plic",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct plic_state),
    .fields = plic_fields,
    .validate = plic_validate,
};

/* The pending, enabled source of the highest priority above `floor`, lowest number first; 0: none. */
static unsigned best_source(const struct plic_state *s, const struct plic_context *context, uint32_t floor)
{
    unsigned best = 0;
    for (unsigned w = 0; w < PLIC_WORDS; w++) {
        for (uint32_t bits = s->pending[w] & context->enable[w]; bits; bits &= bits - 1) {
            unsigned source = w * 32 + (unsigned)__builtin_ctz(bits);
            if (s->priority[source] > floor) {
                floor = s->priority[source];
                best = source;
            }
        }
    }
    return best;
}

static void update_outputs(struct plic *p, bool tell_all)
{
    for (unsigned c = 0; c < p->contexts; c++) {
        bool level = best_source(&p->state, &p->state.context[c], p->state.context[c].threshold) != 0;
        if (level != p->out_level[c] || tell_all) {
            p->out_level[c] = level;
            irq_set(&p->out[c], level);
        }
    }
}

static void wire_changed(void *opaque, unsigned source, bool level)
{
    struct plic *p = opaque;
    uint32_t bit = UINT32_C(1) << source % 32;
    lock(&p->dev.lock);
    struct plic_state *s = &p->state;
    uint32_t *wires = &s->level[source / 32];
    if (level != !!(*wires & bit)) {
        *wires ^= bit;
        if (level && !(s->claimed[source / 32] & bit)) {
            s->pending[source / 32] |= bit;
            update_outputs(p, false);
        }
    }
    unlock(&p->dev.lock);
}

static uint32_t claim(struct plic *p, unsigned c)
{
    struct plic_state *s = &p->state;
    unsigned source = best_source(s, &s->context[c], 0); /* the threshold masks the notification, not the claim */
    if (source) {
        s->pending[source / 32] &= ~(UINT32_C(1) << source % 32);
        s->claimed[source / 32] |= UINT32_C(1) << source % 32;
        update_outputs(p, false);
    }
    return source;
}

static void complete(struct plic *p, unsigned c, uint32_t source)
{
    struct plic_state *s = &p->state;
    if (source == 0 || source >= PLIC_SOURCES)
        return;
    unsigned w = source / 32;
    uint32_t bit = UINT32_C(1) << source % 32;
    /* A completion by a context that has the source disabled is ignored, says the specification. */
    if (!(s->context[c].enable[w] & s->claimed[w] & bit))
        return;
    s->claimed[w] &= ~bit;
    s->pending[w] |= s->level[w] & bit;
    update_outputs(p, false);
}

static uint64_t plic_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    struct plic *p = opaque;
    struct plic_state *s = &p->state;
    uint32_t value = 0;
    lock(&p->dev.lock);
    if (offset < REG_PRIORITY + 4 * PLIC_SOURCES) {
        value = s->priority[offset / 4];
    } else if (offset >= REG_PENDING && offset < REG_PENDING + 4 * PLIC_WORDS) {
        value = s->pending[(offset - REG_PENDING) / 4];
    } else if (offset >= REG_ENABLE && offset < REG_ENABLE + (uint64_t)ENABLE_STRIDE * p->contexts) {
        uint64_t word = (offset - REG_ENABLE) % ENABLE_STRIDE / 4;
        if (word < PLIC_WORDS)
            value = s->context[(offset - REG_ENABLE) / ENABLE_STRIDE].enable[word];
    } else if (offset >= REG_CONTEXT && offset < REG_CONTEXT + (uint64_t)CONTEXT_STRIDE * p->contexts) {
        unsigned c = (unsigned)((offset - REG_CONTEXT) / CONTEXT_STRIDE);
        uint64_t reg = (offset - REG_CONTEXT) % CONTEXT_STRIDE;
        if (reg == CONTEXT_THRESHOLD)
            value = s->context[c].threshold;
        else if (reg == CONTEXT_CLAIM)
            value = claim(p, c);
    }
    unlock(&p->dev.lock);
    return value;
}

static void plic_write(void *opaque, uint64_t offset, uint64_t wide, unsigned size)
{
    (void)size;
    struct plic *p = opaque;
    struct plic_state *s = &p->state;
    uint32_t value = (uint32_t)wide;
    lock(&p->dev.lock);
    if (offset < REG_PRIORITY + 4 * PLIC_SOURCES) {
        if (offset >= 4) /* there is no source 0 */
            s->priority[offset / 4] = value & PLIC_PRIORITY_MAX;
        update_outputs(p, false);
    } else if (offset >= REG_ENABLE && offset < REG_ENABLE + (uint64_t)ENABLE_STRIDE * p->contexts) {
        uint64_t word = (offset - REG_ENABLE) % ENABLE_STRIDE / 4;
        if (word < PLIC_WORDS)
            s->context[(offset - REG_ENABLE) / ENABLE_STRIDE].enable[word] = word ? value : value & ~UINT32_C(1);
        update_outputs(p, false);
    } else if (offset >= REG_CONTEXT && offset < REG_CONTEXT + (uint64_t)CONTEXT_STRIDE * p->contexts) {
        unsigned c = (unsigned)((offset - REG_CONTEXT) / CONTEXT_STRIDE);
        uint64_t reg = (offset - REG_CONTEXT) % CONTEXT_STRIDE;
        if (reg == CONTEXT_THRESHOLD) {
            s->context[c].threshold = value & PLIC_PRIORITY_MAX;
            update_outputs(p, false);
        } else if (reg == CONTEXT_CLAIM) {
            complete(p, c, value);
        }
    }
    unlock(&p->dev.lock);
}

static void *plic_state_object(struct device *dev)
{
    return &((struct plic *)dev)->state;
}

static void plic_reset(struct device *dev)
{
    struct plic *p = (struct plic *)dev;
    lock(&dev->lock);
    /* Wires belong to the devices, whose own resets pull them low, before this or after it. */
    uint32_t level[PLIC_WORDS];
    memcpy(level, p->state.level, sizeof(level));
    memset(&p->state, 0, sizeof(p->state));
    memcpy(p->state.level, level, sizeof(level));
    update_outputs(p, true);
    unlock(&dev->lock);
}

static void plic_loaded(struct device *dev)
{
    struct plic *p = (struct plic *)dev;
    lock(&dev->lock);
    update_outputs(p, true);
    unlock(&dev->lock);
}

static void plic_free(struct device *dev)
{
    lock_destroy(&dev->lock);
    free(dev);
}

static const struct bus_ops plic_bus = { .read = plic_read, .write = plic_write, .min_bytes = 4, .max_bytes = 4 };

static const struct device_ops plic_ops = {
    .name = "sifive,plic-1.0.0",
    .state = &plic_desc,
    .bus = &plic_bus,
    .state_object = plic_state_object,
    .reset = plic_reset,
    .loaded = plic_loaded,
    .free = plic_free,
};

struct device *plic_new(unsigned contexts, const struct irq_line *out, struct err *err)
{
    if (contexts == 0 || contexts > PLIC_CONTEXTS_MAX) {
        err_set(err, -EINVAL, "a PLIC has 1 to %d contexts, not %u", PLIC_CONTEXTS_MAX, contexts);
        return NULL;
    }
    struct plic *p = calloc(1, sizeof(*p));
    if (!p) {
        err_set(err, -ENOMEM, "no memory for the PLIC");
        return NULL;
    }
    device_init(&p->dev, &plic_ops, LOCK_IRQCHIP);
    p->dev.bytes = PLIC_BYTES;
    p->contexts = contexts;
    memcpy(p->out, out, contexts * sizeof(*out));
    return &p->dev;
}

struct irq_line plic_input(struct device *plic, unsigned source)
{
    if (source == 0 || source >= PLIC_SOURCES)
        return (struct irq_line){ 0 };
    return (struct irq_line){ .set = wire_changed, .opaque = plic, .number = source };
}
