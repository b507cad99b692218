/* Power is cut after every single write and flush that the driver makes: whatever of the writes since the last flush got to
 * the disk, sector by sector, the image is consistent, and each sector of the disk has what was flushed or something later. */
#include "tests/unit/block/qcow2_image.h"

#include "block/qcow2.h"
#include "tests/unit/block/memory_image.h"

enum { SECTOR = 512, VALUES_MAX = 64, VARIANTS = 3, WRITES_MAX = 4096 };

struct sector {
    uint32_t value[VALUES_MAX]; /* [0]: durable; the rest came later */
    unsigned values;
};

struct note { /* a write that no flush has made durable */
    uint64_t offset;
    size_t bytes;
    uint8_t *data;
};

struct world {
    struct memory_image *file;
    struct block_image *image, *backing;
    struct sector *sector;
    uint64_t sectors;
    struct bytes durable;
    struct note note[WRITES_MAX];
    unsigned notes;
    uint64_t seed, checked;
    uint8_t *scratch;
    size_t scratch_bytes;
    char bad[512];
};

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static uint32_t below_value(uint64_t sector)
{
    return 0x80000000U | (uint32_t)sector;
}

/* --- the cut -------------------------------------------------------------------------------------------------- */

static void apply(struct world *w, const struct note *note, uint64_t *some)
{
    for (size_t at = 0; at < note->bytes; at += SECTOR) {
        size_t piece = note->bytes - at < SECTOR ? note->bytes - at : SECTOR;
        if (some && next(some) & 1)
            continue;
        memcpy(w->scratch + note->offset + at, note->data + at, piece);
        if (note->offset + at + piece > w->scratch_bytes)
            w->scratch_bytes = note->offset + at + piece;
    }
}

static void check_sector(struct world *w, const struct look *l, uint64_t i)
{
    const struct sector *s = &w->sector[i];
    uint64_t place = look_place(l, i * SECTOR);
    uint32_t value = place == 0 ? (w->backing ? below_value(i) : 0) : 0;
    if (place > 1 && place + 4 <= l->bytes)
        memcpy(&value, l->d + place, 4);
    for (unsigned k = 0; k < s->values; k++) {
        if (s->value[k] == value)
            return;
    }
    snprintf(w->bad, sizeof(w->bad), "sector %llu has %#x, and should have %#x or one of %u later ones",
             (unsigned long long)i, value, s->value[0], s->values - 1);
}

static void check_cut(struct world *w, const char *which)
{
    struct look l;
    image_look(w->scratch, w->scratch_bytes, &l);
    if (l.bad[0])
        snprintf(w->bad, sizeof(w->bad), "%.200s", l.bad);
    for (uint64_t i = 0; i < w->sectors && !w->bad[0]; i++)
        check_sector(w, &l, i);
    free(l.uses);
    w->checked++;
    if (w->bad[0])
        fail_msg("power cut after %u writes since a flush, %s of them done: %s", w->notes, which, w->bad);
}

static void cut(struct world *w)
{
    static const char *const names[] = { "all", "some", "none" };
    for (unsigned variant = 0; variant < VARIANTS; variant++) {
        uint64_t seed = next(&w->seed);
        w->scratch = realloc(w->scratch, w->file->room);
        memset(w->scratch, 0, w->file->room);
        memcpy(w->scratch, w->durable.data, w->durable.bytes);
        w->scratch_bytes = w->durable.bytes;
        for (unsigned i = 0; i < w->notes && variant < 2; i++)
            apply(w, &w->note[i], variant == 1 ? &seed : NULL);
        check_cut(w, names[variant]);
    }
}

static void wrote(void *opaque, uint64_t offset, const void *data, size_t bytes)
{
    struct world *w = opaque;
    assert_true(w->notes < WRITES_MAX);
    struct note *note = &w->note[w->notes++];
    *note = (struct note){ .offset = offset, .bytes = bytes, .data = malloc(bytes) };
    memcpy(note->data, data, bytes);
    cut(w);
}

static void flushed(void *opaque)
{
    struct world *w = opaque;
    for (unsigned i = 0; i < w->notes; i++)
        free(w->note[i].data);
    w->notes = 0;
    w->durable.data = realloc(w->durable.data, w->file->bytes);
    w->durable.bytes = w->file->bytes;
    memcpy(w->durable.data, w->file->data, w->file->bytes);
    cut(w);
}

/* --- the guest ------------------------------------------------------------------------------------------------ */

static void expect(struct world *w, uint64_t sector, uint64_t count, uint32_t value)
{
    for (uint64_t i = sector; i < sector + count; i++) {
        struct sector *s = &w->sector[i];
        assert_true(s->values < VALUES_MAX);
        s->value[s->values++] = value;
    }
}

static void guest_write(struct world *w, uint64_t sector, uint64_t count, uint32_t value)
{
    uint8_t *data = calloc(count, SECTOR);
    expect(w, sector, count, value);
    for (uint64_t i = 0; i < count; i++)
        memcpy(data + i * SECTOR, &value, 4);
    for (uint64_t at = 0; at < count * SECTOR;) {
        struct iovec iov = { data + at, count * SECTOR - at };
        ssize_t done = w->image->driver->write(w->image, sector * SECTOR + at, &iov, 1);
        assert_true(done > 0 || done == -EINTR);
        at += done > 0 ? (uint64_t)done : 0;
    }
    free(data);
}

static void guest_flush(struct world *w)
{
    assert_int_equal(w->image->driver->flush(w->image), 0);
    for (uint64_t i = 0; i < w->sectors; i++) {
        w->sector[i].value[0] = w->sector[i].value[w->sector[i].values - 1];
        w->sector[i].values = 1;
    }
}

static void guest_zero(struct world *w, uint64_t sector, uint64_t count, bool unmap)
{
    expect(w, sector, count, 0);
    int result = w->image->driver->zero(w->image, sector * SECTOR, count * SECTOR, unmap);
    if (result == -EOPNOTSUPP)
        guest_write(w, sector, count, 0);
    else
        assert_int_equal(result, 0);
}

/* A hint: whole clusters read as zeros then, and the rest stays. */
static void guest_discard(struct world *w, uint64_t sector, uint64_t count)
{
    expect(w, sector, count, 0);
    int result = w->image->driver->discard(w->image, sector * SECTOR, count * SECTOR);
    assert_true(result == 0 || result == -EOPNOTSUPP);
    for (uint64_t i = sector; i < sector + count; i++) {
        uint32_t value[SECTOR / 4];
        struct iovec iov = { value, SECTOR };
        assert_int_equal(w->image->driver->read(w->image, i * SECTOR, &iov, 1), SECTOR);
        struct sector *s = &w->sector[i];
        assert_true(value[0] == 0 || (s->values > 1 && value[0] == s->value[s->values - 2]));
        s->value[s->values++] = value[0];
    }
}

static bool crowded(const struct world *w)
{
    for (uint64_t i = 0; i < w->sectors; i++) {
        if (w->sector[i].values + 4 > VALUES_MAX)
            return true;
    }
    return w->notes + 256 > WRITES_MAX;
}

static void live(struct world *w, unsigned steps, uint64_t flush_every)
{
    for (unsigned i = 1; i <= steps; i++) {
        uint64_t sector = next(&w->seed) % w->sectors, count = 1 + next(&w->seed) % 24, what = next(&w->seed) % 10;
        count = count < w->sectors - sector ? count : w->sectors - sector;
        if (next(&w->seed) % flush_every == 0 || crowded(w))
            guest_flush(w);
        if (what < 6)
            guest_write(w, sector, count, i);
        else if (what < 8)
            guest_zero(w, sector, count, what == 6);
        else
            guest_discard(w, sector, count);
    }
}

/* --- worlds --------------------------------------------------------------------------------------------------- */

static void begin(struct world *w, struct bytes image, bool backing, uint64_t seed)
{
    struct block_options options = { .name = "disk" };
    struct qcow2_backing said;
    struct err err = { 0 };
    *w = (struct world){ .file = memory_new(image.data, image.bytes), .seed = seed };
    w->file->keep = true;
    w->sectors = be64_get(image.data + 24) / SECTOR;
    w->sector = calloc(w->sectors, sizeof(*w->sector));
    for (uint64_t i = 0; i < w->sectors; i++)
        w->sector[i].values = 1;
    if (qcow2_new(&w->file->image, "disk", &options, &w->image, &said, &err) < 0)
        fail_msg("%s", err.text);
    if (backing) {
        struct memory_image *below = memory_new(NULL, w->sectors * SECTOR);
        for (uint64_t i = 0; i < w->sectors; i++) {
            w->sector[i].value[0] = below_value(i);
            memcpy(below->data + i * SECTOR, w->sector[i].value, 4);
        }
        w->backing = &below->image;
        qcow2_set_backing(w->image, w->backing, true);
    }
    w->durable = (struct bytes){ malloc(image.bytes), image.bytes };
    memcpy(w->durable.data, image.data, image.bytes);
    free(image.data);
    if (w->image->driver->take(w->image, &err) < 0)
        fail_msg("%s", err.text);
    w->file->opaque = w;
    w->file->wrote = wrote;
    w->file->flushed = flushed;
}

static void end(struct world *w)
{
    struct look l;
    guest_flush(w);
    w->image->driver->let_go(w->image);
    image_look(w->file->data, w->file->bytes, &l);
    assert_string_equal(l.bad, "");
    assert_int_equal(image_leaks(&l), 0);
    free(l.uses);
    assert_null(qcow2_trouble(w->image));
    w->image->driver->free(w->image);
    w->file->keep = false;
    memory_free(&w->file->image);
    for (unsigned i = 0; i < w->notes; i++)
        free(w->note[i].data);
    assert_true(w->checked > 100);
    free(w->sector);
    free(w->durable.data);
    free(w->scratch);
    free(w);
}

static void run(const struct made *how, bool backing, uint64_t flush_every)
{
    struct world *w = malloc(sizeof(*w));
    begin(w, image_make(how), backing, how->cluster_bits * 100 + how->refcount_order * 10 + how->version);
    live(w, 150, flush_every);
    end(w);
}

static void an_image_survives_every_cut(void **state)
{
    (void)state;
    run(&(struct made){ 3, 12, 4, 256 * 1024 }, false, 6);
    run(&(struct made){ 3, 12, 4, 256 * 1024 }, false, 60);
    run(&(struct made){ 2, 10, 4, 100 * 1024 }, false, 10);
    run(&(struct made){ 3, 16, 3, 1024 * 1024 - 512 }, false, 10);
}

static void clusters_of_a_sector_make_refcount_tables_grow_and_survive(void **state)
{
    (void)state;
    /* 64 bits each: 64 counts a block, 64 blocks a cluster of the table: 2 MiB of the file. */
    struct world *w = malloc(sizeof(*w));
    begin(w, image_make(&(struct made){ 3, 9, 6, 3 << 20 }), false, 9);
    w->file->wrote = NULL; /* up to the place where it is tight, without looking */
    w->file->flushed = NULL;
    for (uint64_t sector = 0; sector + 128 <= 3712; sector += 128)
        guest_write(w, sector, 128, 77);
    guest_flush(w);
    uint64_t before = be32_get(w->file->data + 56);
    w->file->wrote = wrote;
    w->file->flushed = flushed;
    flushed(w);
    for (uint64_t sector = 3712; sector + 16 <= 4200; sector += 16) {
        guest_write(w, sector, 16, 78);
        if (sector % 64 == 0)
            guest_flush(w);
    }
    guest_flush(w);
    assert_true(be32_get(w->file->data + 56) > before);
    end(w);
}

static void what_is_below_is_not_lost_by_any_cut(void **state)
{
    (void)state;
    run(&(struct made){ 3, 12, 4, 256 * 1024 }, true, 8);
    run(&(struct made){ 3, 13, 1, 256 * 1024 }, true, 8);
    run(&(struct made){ 2, 12, 4, 256 * 1024 }, true, 8);
}

static void a_snapshot_stays_what_it_was_through_every_cut(void **state)
{
    (void)state;
    struct world *w = malloc(sizeof(*w));
    begin(w, image_make(&(struct made){ 3, 12, 4, 256 * 1024 }), false, 31);
    w->file->wrote = NULL;
    w->file->flushed = NULL;
    for (uint64_t i = 0; i < 40; i++)
        guest_write(w, next(&w->seed) % (w->sectors - 8), 8, (uint32_t)i + 1);
    guest_flush(w);
    w->image->driver->let_go(w->image);
    memory_resize(w->file, w->file->bytes + 4 * 4096);
    size_t bytes = image_snapshot(w->file->data, w->file->bytes - 4 * 4096);
    w->file->bytes = bytes;
    uint8_t *before = malloc(bytes);
    memcpy(before, w->file->data, bytes);
    struct err err = { 0 };
    if (w->image->driver->take(w->image, &err) < 0)
        fail_msg("%s", err.text);
    w->file->wrote = wrote;
    w->file->flushed = flushed;
    flushed(w);
    live(w, 120, 8);
    guest_flush(w);
    struct look was, is;
    image_look(before, bytes, &was);
    image_look(w->file->data, w->file->bytes, &is);
    was.l1_at = is.l1_at = look_u64(&was, be64_get(before + 64)); /* the snapshot's */
    for (uint64_t i = 0; i < w->sectors; i++) {
        uint64_t a = look_place(&was, i * SECTOR), b = look_place(&is, i * SECTOR);
        assert_int_equal(a, b);
        if (a > 1)
            assert_memory_equal(was.d + a, is.d + a, SECTOR);
    }
    free(was.uses);
    free(is.uses);
    free(before);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_survives_every_cut),
        cmocka_unit_test(clusters_of_a_sector_make_refcount_tables_grow_and_survive),
        cmocka_unit_test(what_is_below_is_not_lost_by_any_cut),
        cmocka_unit_test(a_snapshot_stays_what_it_was_through_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
