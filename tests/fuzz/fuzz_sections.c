/* The device state of a stream against bytes that somebody made up: every section of a machine that has one of every
 * device, made from its field table. Each input is a row of changes: u8 section, u8 how, be16 place, value. The state that
 * comes of it is loaded, the devices are told, and what was loaded is saved and loads again as the same bytes: a state
 * that one host lets in, the next one must let in too. */
#include "base/fields.h"
#include "tests/fuzz/fuzz.h"

enum { CHANGES_MAX = 64 };

static struct fuzz_machine it;
static struct machine_section section[MACHINE_SECTIONS_MAX];
static unsigned sections;

static void change(struct input *in, struct buf *wire)
{
    unsigned how = (unsigned)take(in, 1) % 4, bytes = 1u << how;
    size_t at = (size_t)take(in, 2);
    uint64_t value = take(in, bytes);
    if (bytes > wire->size)
        return;
    at %= wire->size - bytes + 1;
    for (unsigned i = 0; i < bytes; i++)
        wire->data[at + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static int load(const struct machine_section *one, const struct buf *wire)
{
    struct reader in = reader_of(wire->data, wire->size);
    struct err err = { 0 };
    if (one->lock)
        lock(one->lock);
    int rc = state_load(one->desc, one->object, one->desc->version, &in, &err);
    if (one->lock)
        unlock(one->lock);
    FUZZ_CHECK(rc == 0 || (rc < 0 && err.text[0]));
    return rc;
}

static void save(const struct machine_section *one, struct buf *out)
{
    if (one->lock)
        lock(one->lock);
    state_save(one->desc, one->object, out);
    if (one->lock)
        unlock(one->lock);
}

static void loads_again(const struct machine_section *one)
{
    struct buf first = { 0 }, second = { 0 };
    save(one, &first);
    FUZZ_CHECK(load(one, &first) == 0);
    save(one, &second);
    FUZZ_CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    buf_free(&first);
    buf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    if (!it.machine) {
        fuzz_machine_new(&it, true, true, false);
        sections = machine_sections(it.machine, section);
    }
    bool any = false;
    while (in.size) {
        const struct machine_section *one = &section[take(&in, 1) % sections];
        struct buf wire = { 0 };
        save(one, &wire);
        for (uint64_t n = 1 + take(&in, 1) % CHANGES_MAX; n && in.size; n--)
            change(&in, &wire);
        if (load(one, &wire) == 0) {
            any = true;
            loads_again(one);
        }
        buf_free(&wire);
    }
    if (any) {
        machine_loaded(it.machine);
        for (unsigned i = 0; i < sections; i++)
            loads_again(&section[i]);
    }
    machine_unload(it.machine);
    return 0;
}
