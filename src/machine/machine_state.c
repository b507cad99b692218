/* The machine's state as sections, and whether two machines are the same to a guest. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "machine/boot.h"
#include "machine/machine_impl.h"

/* --- description ----------------------------------------------------------------------------------------- */

static const struct field machine_slot_fields[] = {
    FIELD_BYTES_OF(struct machine_slot, model),
    FIELD_BYTES_OF(struct machine_slot, id),
    FIELD_U8_MAX_OF(struct machine_slot, legacy, 1),
    FIELD_TABLE_END,
};

static const struct field machine_config_fields[] = {
    { "harts", FIELD_U32, offsetof(struct machine_config, harts), 1, 1, 1, HART_MAX, NULL, 0 },
    { "ram_bytes", FIELD_U64, offsetof(struct machine_config, ram_bytes), 1, 1, MACHINE_RAM_MIN_BYTES,
      MACHINE_RAM_MAX_BYTES, NULL, 0 },
    FIELD_STRUCTS_OF(struct machine_config, slot, MACHINE_SLOTS, machine_slot_fields),
    FIELD_U8_MAX_OF(struct machine_config, serial, 1),
    FIELD_TABLE_END,
};

static int machine_config_validate(const void *object, struct err *err)
{
    const struct machine_config *config = object;
    if (config->ram_bytes % PAGE_BYTES)
        return err_set(err, -EPROTO, "ram_bytes %llu is not a whole number of pages",
                       (unsigned long long)config->ram_bytes);
    for (unsigned i = 0; i < MACHINE_SLOTS; i++) {
        const struct machine_slot *slot = &config->slot[i];
        if (!memchr(slot->model, 0, sizeof(slot->model)) || !memchr(slot->id, 0, sizeof(slot->id)))
            return err_set(err, -EPROTO, "slot %u has a name without an end", i);
    }
    return 0;
}

const struct state_desc machine_config_state = {
    .name = "godwit/machine",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct machine_config),
    .fields = machine_config_fields,
    .validate = machine_config_validate,
};

enum { SLOT_TEXT_MAX = 4 * sizeof(((struct machine_slot *)0)->model) }; /* of a model, were every byte to be escaped */

static const char *slot_model(const struct machine_slot *slot, char text[SLOT_TEXT_MAX])
{
    err_printable(slot->model[0] ? slot->model : "nothing", sizeof(slot->model), text, SLOT_TEXT_MAX);
    return text;
}

int machine_config_match(const struct machine_config *ours, const struct machine_config *theirs, struct err *err)
{
    if (ours->harts != theirs->harts)
        return err_set(err, -EINVAL, "the number of harts differs: %u here, %u there", ours->harts, theirs->harts);
    if (ours->ram_bytes != theirs->ram_bytes)
        return err_set(err, -EINVAL, "RAM size differs: %llu MiB here, %llu MiB there",
                       (unsigned long long)ours->ram_bytes >> 20, (unsigned long long)theirs->ram_bytes >> 20);
    if (ours->serial != theirs->serial)
        return err_set(err, -EINVAL, "the serial line differs: %s here, %s there", ours->serial ? "one" : "none",
                       theirs->serial ? "one" : "none");
    for (int i = MACHINE_SLOTS - 1; i >= 0; i--) {
        const struct machine_slot *our = &ours->slot[i], *their = &theirs->slot[i];
        char here[SLOT_TEXT_MAX], there[SLOT_TEXT_MAX];
        if (strncmp(our->model, their->model, sizeof(our->model)) != 0)
            return err_set(err, -EINVAL, "virtio slot %d differs: %s here, %s there", i, slot_model(our, here),
                           slot_model(their, there));
        if (our->model[0] && our->legacy != their->legacy)
            return err_set(err, -EINVAL, "virtio slot %d (%s) differs: %s here, %s there", i, our->model,
                           our->legacy ? "legacy" : "modern", their->legacy ? "legacy" : "modern");
    }
    return 0;
}

/* --- sections -------------------------------------------------------------------------------------------- */

static const struct field machine_clock_fields[] = {
    FIELD_I64_OF(struct machine_clock_state, guest_ns),
    FIELD_U32_OF(struct machine_clock_state, requests),
    FIELD_U32_OF(struct machine_clock_state, fail_code),
    FIELD_TABLE_END,
};

static int machine_clock_validate(const void *object, struct err *err)
{
    const struct machine_clock_state *clock = object;
    if (clock->guest_ns < 0)
        return err_set(err, -EPROTO, "guest_ns %lld is before the guest's start", (long long)clock->guest_ns);
    if (clock->requests & ~MACHINE_GUEST_REQUESTS)
        return err_set(err, -EPROTO, "requests 0x%x is nothing that a guest can ask for", clock->requests);
    return 0;
}

static const struct state_desc machine_clock_desc = {
    .name = "godwit/clock",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct machine_clock_state),
    .fields = machine_clock_fields,
    .validate = machine_clock_validate,
};

unsigned machine_sections(struct machine *m, struct machine_section *out)
{
    unsigned count = 0;
    assert(!m->running);
    machine_note_guest(m);
    out[count++] = (struct machine_section){ &machine_clock_desc, 0, &m->clock_state, NULL };
    for (unsigned i = 0; i < m->config.harts; i++)
        out[count++] = (struct machine_section){ &hart_state, i, vcpu_hart(m->vcpu[i]), NULL };
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->state)
            out[count++] = (struct machine_section){ device->ops->state, device->instance,
                                                     device->ops->state_object(device), &device->lock };
    }
    assert(count <= MACHINE_SECTIONS_MAX);
    return count;
}

void machine_loaded(struct machine *m)
{
    assert(!m->running);
    guest_clock_set_ns(&m->clock, m->clock_state.guest_ns);
    machine_ask_again(m);
    timers_clock_changed(m->timers);
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->loaded)
            device->ops->loaded(device);
    }
}

void machine_unload(struct machine *m)
{
    assert(!m->running);
    if (m->jit)
        jit_unsettle(m->jit);
    guest_clock_set_ns(&m->clock, 0);
    m->clock_state = (struct machine_clock_state){ 0 };
    machine_ask_again(m);
    timers_clock_changed(m->timers);
    machine_reset_parts(m);
}
