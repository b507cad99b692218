/* Is a machine's state whole? Every byte of every state object is named by its table, or marked as made from the rest; and
 * a machine that is filled with random legal values, saved, and loaded into a fresh machine, is saved there as the same
 * bytes. What a device keeps outside its state object this cannot see. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <uv.h>

#include "machine/machine.h"
#include "tests/unit/machine/files.h"

enum {
    MIB = 1 << 20,
    HARTS = 2,
    DISK_BYTES = 4 * MIB,
    TRIES = 200,
    SEEDS = 20,
    PATH_MAX_BYTES = 160,
    OBJECT_MAX_BYTES = 1 << 15
};

struct rig {
    struct chardev *serial, *console;
    struct machine *machine;
    struct machine_section section[MACHINE_SECTIONS_MAX];
    unsigned sections;
};

static struct rig here, there;
static uint64_t random_state;
static uint8_t changed[MACHINE_SECTIONS_MAX][OBJECT_MAX_BYTES];

/* --- two machines that have one of every device ------------------------------------------------------------- */

static struct chardev *find_console(void *opaque, const char *id)
{
    (void)id;
    return ((struct rig *)opaque)->console;
}

static void make(struct rig *rig, bool incoming, const char *image)
{
    struct err err = { 0 };
    static struct machine_config config; /* large */
    config = (struct machine_config){
        .harts = HARTS, .ram_bytes = 16 * MIB, .serial = 1, .bios = "none", .incoming = incoming, .drives = 1
    };
    config.slot[7] = (struct machine_slot){ .model = "virtio-rng-device", .legacy = 1 };
    config.slot[6] = (struct machine_slot){ .model = "virtio-console", .chardev = "console" };
    config.slot[5] = (struct machine_slot){ .model = "virtio-blk-device", .disk = { .drive = "disk", .queues = 3 } };
    config.drive[0] = (struct machine_drive){ .id = "disk", .format_said = true };
    snprintf(config.drive[0].file, sizeof(config.drive[0].file), "%s", image);

    if (chardev_open("serial", "null", uv_default_loop(), &rig->serial, &err) < 0 ||
        chardev_open("console", "null", uv_default_loop(), &rig->console, &err) < 0)
        fail_msg("chardev: %s", err.text);
    struct machine_hosts hosts = { .serial = rig->serial, .find_chardev = find_console, .opaque = rig };
    if (machine_new(&config, &hosts, &rig->machine, &err) < 0)
        fail_msg("machine_new: %s", err.text);
    rig->sections = machine_sections(rig->machine, rig->section);
}

static void unmake(struct rig *rig)
{
    machine_free(rig->machine);
    chardev_free(rig->console);
    chardev_free(rig->serial);
    *rig = (struct rig){ 0 };
}

static int setup(void **state)
{
    static uint8_t disk[DISK_BYTES];
    char image[128];
    if (files_begin(state) < 0)
        return -1;
    file_write(image, "disk", disk, sizeof(disk));
    make(&here, false, image);
    make(&there, true, image);
    return 0;
}

static int teardown(void **state)
{
    unmake(&here);
    unmake(&there);
    return files_end(state);
}

/* --- every element of a state object ------------------------------------------------------------------------ */

static size_t element_bytes(const struct field *row)
{
    switch (row->type) {
    case FIELD_U16: return 2;
    case FIELD_U32: return 4;
    case FIELD_U64:
    case FIELD_I64: return 8;
    case FIELD_STRUCT: return row->stride;
    default: return 1;
    }
}

typedef void element_fn(void *opaque, const char *path, const struct field *row, size_t offset);

static void each_element(const struct field *row, size_t base, const char *prefix, element_fn *act, void *opaque)
{
    for (; row->type != FIELD_END; row++)
        for (uint32_t i = 0; i < row->count; i++) {
            char path[PATH_MAX_BYTES];
            size_t offset = base + row->offset + i * element_bytes(row);
            snprintf(path, sizeof(path), row->count > 1 ? "%s%s[%u]" : "%s%s", prefix, row->name, i);
            if (row->type == FIELD_STRUCT) {
                strncat(path, ".", sizeof(path) - strlen(path) - 1);
                each_element(row->sub, offset, path, act, opaque);
            } else {
                act(opaque, path, row, offset);
            }
        }
}

/* --- every byte has a row ----------------------------------------------------------------------------------- */

struct cover {
    const struct state_desc *desc;
    uint8_t *times; /* a byte of the object is named */
};

static void cover_element(void *opaque, const char *path, const struct field *row, size_t offset)
{
    struct cover *cover = opaque;
    size_t bytes = element_bytes(row);
    if (offset + bytes > cover->desc->object_size)
        fail_msg("%s: %s lies outside the object", cover->desc->name, path);
    for (size_t i = offset; i < offset + bytes; i++)
        cover->times[i]++;
}

static void every_byte_of_a_state_object_has_exactly_one_row(void **state)
{
    (void)state;
    for (unsigned i = 0; i < here.sections; i++) {
        const struct state_desc *desc = here.section[i].desc;
        struct cover cover = { desc, calloc(desc->object_size, 1) };
        assert_non_null(cover.times);
        each_element(desc->fields, 0, "", cover_element, &cover);
        for (size_t at = 0; at < desc->object_size; at++)
            if (cover.times[at] != 1)
                fail_msg(
                    "%s: byte %zu of %zu is named by %u rows: a member without a row of its own, or room that is no "
                    "member",
                    desc->name, at, desc->object_size, cover.times[at]);
        free(cover.times);
    }
}

/* --- random legal values ------------------------------------------------------------------------------------- */

/* Elements with one legal value on this machine, whatever the rest says. */
static const char *const fixed[] = {
    "x[0]",           "stopped",      "mseccfg",      "mhpmcounter[0]", "mhpmcounter[1]",
    "mhpmcounter[2]", "mhpmevent[0]", "mhpmevent[1]", "mhpmevent[2]",   "disk.", /* the image, which is there */
};

/* Also of queues that this device does not have some elements must be 0. */
static bool may_stay(const char *path)
{
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        if (strncmp(path, fixed[i], strlen(fixed[i])) == 0)
            return true;
    return strncmp(path, "virtio.queue[", 13) == 0 && path[13] >= '1';
}

static uint64_t any(void) /* splitmix */
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t any_value(uint64_t now)
{
    switch (any() % 6) {
    case 0: return any();
    case 1: return any() & any() & any();
    case 2: return any() % 16;
    case 3: return UINT64_C(1) << any() % 64;
    case 4: return now + any() % 4;
    default: return now ^ UINT64_C(1) << any() % 64;
    }
}

struct fill {
    const struct machine_section *section;
    uint8_t *object;  /* a legal one, always */
    uint8_t *changed; /* by offset: this element was given another value once */
    struct err err;
};

static bool legal(struct fill *fill)
{
    const struct state_desc *desc = fill->section->desc;
    err_clear(&fill->err);
    return !desc->validate || desc->validate(fill->object, &fill->err) == 0;
}

/* Gives one element another legal value, if any can be found. */
static void fill_element(void *opaque, const char *path, const struct field *row, size_t offset)
{
    struct fill *fill = opaque;
    (void)path;
    uint8_t *at = fill->object + offset;
    size_t bytes = element_bytes(row);
    uint64_t before = 0;

    if (row->type == FIELD_DERIVED)
        return;
    memcpy(&before, at, bytes);
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t value = any_value(before);
        if (row->max && row->max < UINT64_MAX)
            value = row->min + value % (row->max - row->min + 1);
        if (memcmp(&value, &before, bytes) == 0)
            continue;
        memcpy(at, &value, bytes);
        if (legal(fill)) {
            fill->changed[offset] = 1;
            return;
        }
    }
    memcpy(at, &before, bytes); /* the other elements leave it no choice this time */
}

static void put(struct rig *rig, unsigned index, struct buf *bytes)
{
    struct err err = { 0 };
    struct reader in = reader_of(bytes->data, bytes->size);
    const struct machine_section *s = &rig->section[index];
    if (state_load(s->desc, s->object, s->desc->version, &in, &err) < 0)
        fail_msg("loading %s: %s", s->desc->name, err.text);
}

struct settle {
    const struct machine_section *section;
    const uint8_t *before;
};

/* Wires are pulled at a load, since what a random hart and a random PLIC were told does not agree with random devices. All
 * else stays as it was loaded. */
static void settle_element(void *opaque, const char *path, const struct field *row, size_t offset)
{
    static const char *const wires[] = { "pins", "level[", "pending[" };
    struct settle *settle = opaque;
    const uint8_t *now = settle->section->object;
    if (row->type == FIELD_DERIVED || memcmp(settle->before + offset, now + offset, element_bytes(row)) == 0)
        return;
    for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++)
        if (strncmp(path, wires[i], strlen(wires[i])) == 0)
            return;
    fail_msg("%s %u: %s became another value when the machine was told that all is loaded", settle->section->desc->name,
             settle->section->instance, path);
}

static void settle(struct rig *rig)
{
    uint8_t *before[MACHINE_SECTIONS_MAX];
    for (unsigned i = 0; i < rig->sections; i++) {
        size_t bytes = rig->section[i].desc->object_size;
        before[i] = malloc(bytes);
        assert_non_null(before[i]);
        memcpy(before[i], rig->section[i].object, bytes);
    }
    machine_loaded(rig->machine);
    assert_int_equal(machine_sections(rig->machine, rig->section), rig->sections);
    for (unsigned i = 0; i < rig->sections; i++) {
        struct settle s = { &rig->section[i], before[i] };
        each_element(s.section->desc->fields, 0, "", settle_element, &s);
        free(before[i]);
    }
}

static void fill_section(struct rig *rig, unsigned index)
{
    const struct machine_section *s = &rig->section[index];
    struct fill fill = { .section = s, .object = malloc(s->desc->object_size), .changed = changed[index] };
    struct buf bytes = { 0 };

    assert_non_null(fill.object);
    assert_in_range(s->desc->object_size, 1, OBJECT_MAX_BYTES);
    memcpy(fill.object, s->object, s->desc->object_size);
    each_element(s->desc->fields, 0, "", fill_element, &fill);
    state_save(s->desc, fill.object, &bytes);
    put(rig, index, &bytes);
    buf_free(&bytes);
    free(fill.object);
}

/* --- there and the same -------------------------------------------------------------------------------------- */

static void changed_element(void *opaque, const char *path, const struct field *row, size_t offset)
{
    const struct machine_section *s = opaque;
    if (row->type != FIELD_DERIVED && !changed[s - here.section][offset] && !may_stay(path))
        fail_msg("%s %u: %s was never given another value", s->desc->name, s->instance, path);
}

static void compare(const struct machine_section *s, unsigned index, struct buf *sent)
{
    struct buf arrived = { 0 };
    const struct machine_section *theirs = &there.section[index];
    assert_ptr_equal(s->desc, theirs->desc);
    state_save(theirs->desc, theirs->object, &arrived);
    assert_int_equal(arrived.size, sent->size);
    for (size_t i = 0; i < sent->size; i++)
        if (sent->data[i] != arrived.data[i])
            fail_msg("%s %u: byte %zu on the wire was %02x when it was sent and is %02x on arrival", s->desc->name,
                     s->instance, i, sent->data[i], arrived.data[i]);
    buf_free(&arrived);
}

static void a_machine_full_of_random_values_is_the_same_after_it_was_moved(void **state)
{
    (void)state;
    for (random_state = 1; random_state <= SEEDS;) {
        uint64_t seed = random_state;
        struct buf sent[MACHINE_SECTIONS_MAX] = { { 0 } };

        for (unsigned i = 0; i < here.sections; i++)
            fill_section(&here, i);
        settle(&here);
        machine_unload(there.machine);
        for (unsigned i = 0; i < here.sections; i++) {
            state_save(here.section[i].desc, here.section[i].object, &sent[i]);
            put(&there, i, &sent[i]);
        }
        machine_loaded(there.machine);
        assert_int_equal(machine_sections(there.machine, there.section), here.sections);
        for (unsigned i = 0; i < here.sections; i++) {
            compare(&here.section[i], i, &sent[i]);
            buf_free(&sent[i]);
        }
        random_state = seed + 1;
    }
    for (unsigned i = 0; i < here.sections; i++)
        each_element(here.section[i].desc->fields, 0, "", changed_element, &here.section[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_byte_of_a_state_object_has_exactly_one_row, setup, teardown),
        cmocka_unit_test_setup_teardown(a_machine_full_of_random_values_is_the_same_after_it_was_moved, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
