/* qcow2 on images in memory, and in files that qemu-img makes, checks and compares (Debian package qemu-utils). */
#include "tests/unit/block/qcow2_image.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/format.h"
#include "block/qcow2.h"
#include "tests/unit/block/memory_image.h"

enum { SECTOR = 512, PATH_BYTES = 128, MIB = 1 << 20 };

/* --- images in memory ----------------------------------------------------------------------------------------- */

static struct block_image *open_memory(struct memory_image *file, struct err *err)
{
    struct block_options options = { .name = "disk" };
    struct qcow2_backing said;
    struct block_image *image;
    err_clear(err);
    if (qcow2_new(&file->image, "disk", &options, &image, &said, err) < 0)
        return NULL;
    if (image->driver->take(image, err) == 0)
        return image;
    image->driver->free(image);
    return NULL;
}

static struct block_image *made(const struct made *how, struct memory_image **file)
{
    struct bytes bytes = image_make(how);
    struct err err = { 0 };
    *file = memory_new(bytes.data, bytes.bytes);
    free(bytes.data);
    struct block_image *image = open_memory(*file, &err);
    if (!image)
        fail_msg("%s", err.text);
    return image;
}

static int transfer(struct block_image *image, bool write, uint64_t offset, void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        struct iovec iov[2] = { { (uint8_t *)data + at, (bytes - at) / 2 },
                                { (uint8_t *)data + at + (bytes - at) / 2, bytes - at - (bytes - at) / 2 } };
        ssize_t done =
            write ? image->driver->write(image, offset + at, iov, 2) : image->driver->read(image, offset + at, iov, 2);
        if (done < 0 && done != -EINTR)
            return (int)done;
        assert_true(done != 0);
        at += done > 0 ? (size_t)done : 0;
    }
    return 0;
}

static int write_value(struct block_image *image, uint64_t offset, size_t bytes, uint8_t value)
{
    uint8_t *data = malloc(bytes);
    memset(data, value, bytes);
    int result = transfer(image, true, offset, data, bytes);
    free(data);
    return result;
}

static uint8_t byte_at(struct block_image *image, uint64_t offset)
{
    uint8_t sector[SECTOR];
    assert_int_equal(transfer(image, false, offset / SECTOR * SECTOR, sector, SECTOR), 0);
    return sector[offset % SECTOR];
}

static void assert_whole(const struct memory_image *file)
{
    struct look l;
    image_look(file->data, file->bytes, &l);
    assert_string_equal(l.bad, "");
    free(l.uses);
}

static void every_shape_keeps_what_is_written_for_the_next_who_opens_it(void **state)
{
    (void)state;
    for (unsigned cluster_bits = 9; cluster_bits <= 21; cluster_bits += 3) {
        for (unsigned order = 0; order <= 6; order++) {
            struct memory_image *file;
            struct err err;
            struct block_image *image = made(&(struct made){ 3, cluster_bits, order, 8 * MIB }, &file);
            file->keep = true;
            file->step_bytes = 3000; /* the host does it in steps */
            assert_int_equal(image->bytes, 8 * MIB);
            assert_int_equal(write_value(image, 1024, 70 * 1024, 7), 0);
            assert_int_equal(write_value(image, 8 * MIB - SECTOR, SECTOR, 9), 0);
            assert_int_equal(write_value(image, 2048, SECTOR, 8), 0);
            image->driver->let_go(image);
            assert_whole(file);
            image->driver->free(image);
            image = open_memory(file, &err);
            assert_non_null(image);
            assert_int_equal(byte_at(image, 1023), 0);
            assert_int_equal(byte_at(image, 1024), 7);
            assert_int_equal(byte_at(image, 2048), 8);
            assert_int_equal(byte_at(image, 71 * 1024 - 1), 7);
            assert_int_equal(byte_at(image, 71 * 1024), 0);
            assert_int_equal(byte_at(image, 8 * MIB - 1), 9);
            image->driver->free(image);
            file->keep = false;
            memory_free(&file->image);
        }
    }
}

static void extents_tell_data_from_holes_and_zeros(void **state)
{
    struct memory_image *file;
    struct block_image *image = made(&(struct made){ 3, 16, 4, 512 * UINT64_C(1) << 20 }, &file);
    uint64_t bytes;
    bool data;
    (void)state;
    assert_int_equal(image->driver->extent(image, 0, &bytes, &data), 0);
    assert_false(data);
    assert_true(bytes >= 64 * MIB); /* not a table at a time */
    assert_int_equal(write_value(image, 5 * MIB, MIB, 1), 0);
    assert_int_equal(image->driver->extent(image, SECTOR, &bytes, &data), 0);
    assert_false(data);
    assert_int_equal(bytes, 5 * MIB - SECTOR);
    assert_int_equal(image->driver->extent(image, 5 * MIB, &bytes, &data), 0);
    assert_true(data);
    assert_int_equal(bytes, MIB);
    assert_int_equal(image->driver->zero(image, 5 * MIB, MIB / 2, false), 0);
    assert_int_equal(image->driver->extent(image, 5 * MIB, &bytes, &data), 0);
    assert_false(data);
    assert_int_equal(bytes, MIB / 2);
    image->driver->free(image);
}

static void clusters_that_are_given_up_are_used_again_but_not_too_early(void **state)
{
    struct memory_image *file;
    struct block_image *image = made(&(struct made){ 3, 12, 4, MIB }, &file);
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(write_value(image, 0, MIB / 2, (uint8_t)(round + 1)), 0);
        assert_int_equal(image->driver->discard(image, 0, MIB / 2), 0);
        assert_int_equal(byte_at(image, 4096), 0);
        assert_int_equal(image->driver->flush(image), 0);
    }
    assert_true(file->bytes < 2 * MIB); /* else it were 10 */
    assert_whole(file);
    image->driver->free(image);
}

static void what_fails_is_told_and_loses_nothing_else(void **state)
{
    struct memory_image *file;
    struct block_image *image = made(&(struct made){ 3, 12, 4, MIB }, &file);
    (void)state;
    assert_int_equal(write_value(image, 0, 8192, 1), 0);
    assert_int_equal(image->driver->flush(image), 0);
    file->fail_writes = 1;
    assert_int_equal(write_value(image, 65536, 4096, 2), -EIO);
    assert_int_equal(byte_at(image, 65536), 0);
    assert_int_equal(write_value(image, 65536, 4096, 3), 0);
    file->bytes_max = file->bytes;
    assert_int_equal(write_value(image, 131072, 65536, 4), -ENOSPC);
    assert_int_equal(byte_at(image, 0), 1);
    file->bytes_max = 0;
    assert_int_equal(write_value(image, 131072, 65536, 4), 0);
    assert_int_equal(image->driver->flush(image), 0);
    assert_whole(file);
    assert_int_equal(write_value(image, 262144, 4096, 5), 0);
    file->fail_flushes = 1;
    assert_int_equal(image->driver->flush(image), -EIO);
    assert_int_equal(image->driver->flush(image), -EIO); /* what the host dropped does not come back */
    assert_whole(file);
    image->driver->free(image);
}

struct worker {
    struct block_image *image;
    unsigned number;
    int result;
};

/* Each has every fourth sector for itself, so that all of them want the same clusters. */
static void *work(void *opaque)
{
    struct worker *w = opaque;
    uint64_t seed = w->number;
    for (unsigned i = 0; i < 3000 && w->result == 0; i++) {
        uint8_t data[SECTOR], back[SECTOR];
        seed = seed * UINT64_C(6364136223846793005) + 1;
        uint64_t offset = ((seed >> 33) % 1024 * 4 + w->number) * SECTOR;
        memset(data, (int)i, sizeof(data));
        w->result = transfer(w->image, true, offset, data, SECTOR);
        if (w->result == 0)
            w->result = transfer(w->image, false, offset, back, SECTOR);
        if (w->result == 0 && memcmp(data, back, SECTOR) != 0)
            w->result = -EBADMSG;
        if (w->result == 0 && i % 100 == 0)
            w->result = w->image->driver->flush(w->image);
    }
    return NULL;
}

static void threads_that_want_the_same_clusters_find_what_they_wrote(void **state)
{
    struct memory_image *file;
    struct block_image *image = made(&(struct made){ 3, 13, 4, 2 * MIB }, &file);
    struct worker worker[4];
    pthread_t thread[4];
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        worker[i] = (struct worker){ .image = image, .number = i };
        assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(worker[i].result, 0);
    assert_int_equal(image->driver->flush(image), 0);
    assert_whole(file);
    image->driver->free(image);
}

/* --- what is not right ---------------------------------------------------------------------------------------- */

struct wrong {
    size_t at;
    unsigned bytes;
    uint64_t value;
    const char *words;
};

static void poke(uint8_t *data, const struct wrong *w)
{
    for (unsigned i = 0; i < w->bytes; i++)
        data[w->at + i] = (uint8_t)(w->value >> 8 * (w->bytes - 1 - i));
}

static void what_is_wrong_is_refused_with_its_name(void **state)
{
    static const struct wrong rows[] = {
        { 0, 4, 0, "it is not a qcow2 image" },
        { 4, 4, 4, "version 4" },
        { 20, 4, 8, "clusters of 2^8 bytes" },
        { 20, 4, 22, "clusters of 2^22 bytes" },
        { 24, 8, 0, "a disk of 0 bytes" },
        { 24, 8, 513, "a disk of 513 bytes" },
        { 24, 8, UINT64_C(1) << 40, "its L1 table has 1 entries, and its size needs" },
        { 24, 8, UINT64_C(1) << 62, "more than" },
        { 32, 4, 1, "it is encrypted" },
        { 36, 4, 0x7fffffff, "more than" },
        { 40, 8, 4096 * 1000, "the L1 table, 8 bytes at offset 0x3e8000, is outside of the file" },
        { 40, 8, 4097, "the L1 table at offset 0x1001, which cannot be" },
        { 40, 8, 4096, "the refcount table at offset 0x1000 overlaps another table" },
        { 48, 8, 0, "the refcount table at offset 0" },
        { 48, 8, UINT64_MAX - 4095, "is outside of the file" },
        { 56, 4, 0, "a refcount table of 0 clusters" },
        { 56, 4, 0x10000000, "a refcount table of 268435456 clusters" },
        { 60, 4, 70000, "70000 snapshots" },
        { 60, 4, 1, "the table of snapshots at offset 0" },
        { 72, 8, 1, "its refcounts are not up to date (dirty)" },
        { 72, 8, 2, "it is marked as corrupt" },
        { 72, 8, 4, "external data file" },
        { 72, 8, 8, "compression type 0 and its feature bit do not agree" },
        { 72, 8, 16, "extended L2 entries" },
        { 72, 8, 64, "an incompatible feature that is not known here: bit 6" },
        { 96, 4, 7, "refcounts of 2^7 bits" },
        { 100, 4, 103, "a header of 103 bytes" },
        { 104, 8, UINT64_C(0xe2792aca00ffffff), "a header extension of 16777215 bytes" },
        { 4096, 8, 12345 * 512, "refcount block 0 is said to be at offset" },
        { 4096, 8, 4096, "refcount block at offset 0x1000 overlaps another table" },
        { 3 * 4096, 8, UINT64_C(1) << 63 | 8192, "at offset 0x2000 overlaps another table" },
        { 3 * 4096, 8, UINT64_C(1) << 60, "L2 table 0 is said to be at offset 0x1000000000000000" },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bytes bytes = image_make(&(struct made){ 3, 12, 4, MIB });
        struct err err;
        poke(bytes.data, &rows[i]);
        struct block_image *image = open_memory(memory_new(bytes.data, bytes.bytes), &err);
        if (image)
            fail_msg("row %u (%s) was opened", i, rows[i].words);
        if (!strstr(err.text, rows[i].words))
            fail_msg("'%s' lacks '%s'", err.text, rows[i].words);
        free(bytes.data);
    }
}

static void entries_that_point_into_tables_are_found_and_end_all_writing(void **state)
{
    static const uint64_t entries[] = {
        UINT64_C(1) << 63 | 4096,       /* the refcount table */
        UINT64_C(1) << 63 | 0,          /* the header */
        UINT64_C(1) << 63 | 100 * 4096, /* outside */
        UINT64_C(1) << 63 | 16384 | 512,
        UINT64_C(1) << 60 | 16384,
        UINT64_C(1) << 62 | (UINT64_C(1) << 50), /* compressed, outside */
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        struct memory_image *file;
        struct err err;
        struct block_image *image = made(&(struct made){ 3, 12, 4, MIB }, &file);
        uint8_t data[SECTOR];
        assert_int_equal(write_value(image, 0, SECTOR, 1), 0);
        image->driver->let_go(image);
        uint64_t table = be64_get(file->data + 3 * 4096) & LOOK_OFFSET;
        be64_put(file->data + table + 8, entries[i]);
        file->keep = true;
        image->driver->free(image);
        image = open_memory(file, &err);
        assert_non_null(image);
        assert_int_equal(byte_at(image, 0), 1);
        assert_non_null(qcow2_trouble(image));
        assert_non_null(strstr(qcow2_trouble(image), "points where it must not"));
        assert_int_equal(transfer(image, false, 4096, data, SECTOR), -EIO);
        assert_int_equal(write_value(image, 0, SECTOR, 2), -EIO);
        image->driver->free(image);
        file->keep = false;
        memory_free(&file->image);
    }
}

/* --- files, and qemu-img -------------------------------------------------------------------------------------- */

struct world {
    char folder[PATH_BYTES];
};

static bool has_qemu_img(void)
{
    return system("qemu-img --version >/dev/null 2>&1") == 0;
}

/* A shell's command in the folder; its exit code. */
static int sh(const struct world *w, const char *format, ...)
{
    char words[1024], command[1280];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof(words), format, args);
    va_end(args);
    snprintf(command, sizeof(command), "cd %s && { %s; } >log 2>&1", w->folder, words);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void must(const struct world *w, const char *command)
{
    if (sh(w, "%s", command) != 0) {
        char show[PATH_BYTES + 32];
        snprintf(show, sizeof(show), "cat %s/log >&2", w->folder);
        fail_msg("%s: %d", command, system(show));
    }
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    snprintf(w->folder, sizeof(w->folder), "/var/tmp/godwit-qcow2-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[PATH_BYTES + 16];
    snprintf(command, sizeof(command), "rm -rf %s", w->folder);
    int result = system(command);
    free(w);
    return result;
}

static int open_file(const struct world *w, const char *name, bool readonly, bool discard, struct block_image **image,
                     struct err *err)
{
    char path[2 * PATH_BYTES];
    struct block_options options = { .name = "disk", .readonly = readonly, .discard = discard };
    struct format_source source = { .file = path, .format = BLOCK_FORMAT_QCOW2 };
    snprintf(path, sizeof(path), "%s/%s", w->folder, name);
    err_clear(err);
    int result = format_open(&source, &options, image, err);
    if (result == 0) {
        result = (*image)->driver->take(*image, err);
        if (result < 0)
            (*image)->driver->free(*image);
    }
    return result;
}

static struct block_image *opened(const struct world *w, const char *name, bool readonly)
{
    struct block_image *image;
    struct err err = { 0 };
    if (open_file(w, name, readonly, true, &image, &err) < 0)
        fail_msg("%s", err.text);
    return image;
}

static void closed(struct block_image *image)
{
    image->driver->let_go(image);
    image->driver->free(image);
}

/* The same to the image and to a raw file beside it. */
static void scribble(struct block_image *image, const struct world *w, const char *raw, uint64_t seed)
{
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%s", w->folder, raw);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    for (unsigned i = 0; i < 200; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t offset = (seed >> 33) % (image->bytes / SECTOR) * SECTOR, bytes = ((seed >> 20) % 300 + 1) * SECTOR;
        uint8_t value = i % 4 == 3 ? 0 : (uint8_t)(i + 1), *data;
        bytes = bytes < image->bytes - offset ? bytes : image->bytes - offset;
        data = malloc(bytes);
        memset(data, value, bytes);
        int result = i % 4 == 3 ? image->driver->zero(image, offset, bytes, i % 8 == 3) : -EOPNOTSUPP;
        if (result == -EOPNOTSUPP)
            result = transfer(image, true, offset, data, bytes);
        assert_int_equal(result, 0);
        if (i % 40 == 0)
            assert_int_equal(image->driver->flush(image), 0);
        assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
        assert_int_equal(fwrite(data, 1, bytes, file), bytes);
        free(data);
    }
    fclose(file);
}

static void what_is_written_here_is_right_for_qemu_img(void **state)
{
    static const char *const shapes[] = {
        "",
        "-o cluster_size=512",
        "-o cluster_size=4k,refcount_bits=1",
        "-o cluster_size=2M",
        "-o compat=0.10",
        "-o refcount_bits=64",
        "-o preallocation=metadata",
        "-o lazy_refcounts=on",
    };
    struct world *w = *state;
    if (!has_qemu_img())
        skip();
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        char command[256];
        snprintf(command, sizeof(command),
                 "rm -f a raw; qemu-img create -f qcow2 %s a 12345k && truncate -s 12345k raw", shapes[i]);
        must(w, command);
        struct block_image *image = opened(w, "a", false);
        scribble(image, w, "raw", i + 1);
        closed(image);
        must(w, "qemu-img check -f qcow2 a");
        must(w, "qemu-img compare -f qcow2 -F raw a raw");
    }
}

static void what_qemu_img_wrote_is_read_here(void **state)
{
    static const char *const ways[] = {
        "", "-c", "-c -o compression_type=zstd", "-c -o cluster_size=512", "-c -o cluster_size=2M", "-o compat=0.10 -c"
    };
    struct world *w = *state;
    if (!has_qemu_img())
        skip();
    must(w,
         "(seq 1 400000; head -c 1000000 /dev/urandom; head -c 3000000 /dev/zero; seq 5 9) >raw; truncate -s 8M raw");
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        char command[256];
        snprintf(command, sizeof(command), "rm -f a; qemu-img convert -f raw -O qcow2 %s raw a", ways[i]);
        must(w, command);
        uint8_t *data = malloc(8 * MIB);
        struct block_image *image = opened(w, "a", false);
        assert_int_equal(transfer(image, false, 0, data, 8 * MIB), 0);
        char path[2 * PATH_BYTES];
        snprintf(path, sizeof(path), "%s/out", w->folder);
        FILE *file = fopen(path, "w");
        assert_int_equal(fwrite(data, 1, 8 * MIB, file), 8 * MIB);
        fclose(file);
        must(w, "cmp raw out");
        must(w, "cp raw changed");
        scribble(image, w, "changed", i + 1); /* compressed clusters are written over */
        closed(image);
        must(w, "qemu-img check -f qcow2 a");
        must(w, "qemu-img compare -f qcow2 -F raw a changed");
        free(data);
    }
}

static void chains_are_read_through_and_snapshots_are_kept(void **state)
{
    struct world *w = *state;
    if (!has_qemu_img())
        skip();
    must(w, "seq 1 700000 >base; truncate -s 4M base; cp base raw; truncate -s 6M raw; mkdir sub;"
            "qemu-img create -f qcow2 -b ../base -F raw sub/middle 5M;"
            "qemu-img create -f qcow2 -b sub/middle -F qcow2 top 6M; cp base base.before");
    struct block_image *image = opened(w, "top", false);
    scribble(image, w, "raw", 3);
    closed(image);
    must(w, "qemu-img check -f qcow2 top && qemu-img compare -f qcow2 -F raw top raw && cmp base base.before");
    must(w, "qemu-img snapshot -c one top; cp raw raw.one");
    image = opened(w, "top", false);
    scribble(image, w, "raw", 4);
    closed(image);
    must(w, "qemu-img check -f qcow2 top && qemu-img compare -f qcow2 -F raw top raw");
    must(w, "qemu-img convert -l snapshot.name=one -f qcow2 -O raw top one && cmp one raw.one");
}

/* Its header extension with the format of what is below becomes one that nobody knows. */
static void say_no_format(const struct world *w, const char *name)
{
    static const uint8_t extension[4] = { 0xe2, 0x79, 0x2a, 0xca };
    char path[2 * PATH_BYTES];
    uint8_t head[512], *at;
    snprintf(path, sizeof(path), "%s/%s", w->folder, name);
    FILE *file = fopen(path, "r+");
    assert_int_equal(fread(head, 1, sizeof(head), file), sizeof(head));
    at = memmem(head, sizeof(head), extension, sizeof(extension));
    assert_non_null(at);
    memcpy(at, "none", 4);
    rewind(file);
    assert_int_equal(fwrite(head, 1, sizeof(head), file), sizeof(head));
    fclose(file);
}

static void loops_and_strange_backing_files_are_refused(void **state)
{
    struct world *w = *state;
    struct block_image *image;
    struct err err;
    if (!has_qemu_img())
        skip();
    must(w, "truncate -s 1M base; qemu-img create -f qcow2 -b base -F raw a; qemu-img create -f qcow2 -b a -F qcow2 b;"
            "qemu-img rebase -u -f qcow2 -b b -F qcow2 a");
    assert_int_equal(open_file(w, "b", false, false, &image, &err), -ELOOP);
    assert_non_null(strstr(err.text, "the chain of backing files comes back to it"));
    must(w, "qemu-img rebase -u -f qcow2 -b nothing -F raw a");
    assert_int_equal(open_file(w, "a", false, false, &image, &err), -ENOENT);
    assert_non_null(strstr(err.text, "nothing"));
    must(w, "qemu-img rebase -u -f qcow2 -b nbd://localhost/x -F raw a");
    assert_int_equal(open_file(w, "a", false, false, &image, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "its backing file 'nbd://localhost/x' is no path of a file"));
    /* One that does not say what is below, where it looks like qcow2: a guest may have written that. */
    must(w, "qemu-img create -f qcow2 base2 1M; qemu-img create -f qcow2 -b base2 -F qcow2 c");
    say_no_format(w, "c");
    assert_int_equal(open_file(w, "c", false, false, &image, &err), -EINVAL);
    assert_non_null(strstr(err.text, "it looks like a qcow2 image"));
}

static void nobody_else_writes_an_image_or_what_is_below_it(void **state)
{
    struct world *w = *state;
    if (!has_qemu_img())
        skip();
    must(w, "truncate -s 1M base; qemu-img create -f qcow2 -b base -F raw top");
    struct block_image *image = opened(w, "top", false), *second;
    struct err err;
    assert_int_equal(open_file(w, "top", true, false, &second, &err), -EBUSY);
    assert_int_not_equal(sh(w, "qemu-io -f qcow2 -c 'write 0 512' top"), 0);
    assert_int_not_equal(sh(w, "qemu-io -f raw -c 'write 0 512' base"), 0);
    assert_int_equal(sh(w, "qemu-io -r -f raw -c 'read 0 512' base"), 0);
    closed(image);
    assert_int_equal(sh(w, "qemu-io -f qcow2 -c 'write 0 512' top"), 0);
}

/* --- kill -9 -------------------------------------------------------------------------------------------------- */

static void victim(const struct world *w, uint64_t seed, int acks)
{
    struct block_image *image;
    struct err err = { 0 };
    if (open_file(w, "a", false, true, &image, &err) < 0)
        _exit(1);
    for (uint32_t i = 1;; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t offset = (seed >> 33) % (image->bytes / SECTOR) * SECTOR, bytes = ((seed >> 20) % 64 + 1) * SECTOR;
        bytes = bytes < image->bytes - offset ? bytes : image->bytes - offset;
        int result =
            i % 5 == 4 ? image->driver->discard(image, offset, bytes) : write_value(image, offset, bytes, (uint8_t)i);
        if (result == 0 && i % 7 == 0)
            result = image->driver->flush(image);
        if (result < 0 || write(acks, &i, sizeof(i)) != sizeof(i))
            _exit(1);
    }
}

static void an_image_is_consistent_whenever_the_process_is_killed(void **state)
{
    struct world *w = *state;
    if (!has_qemu_img())
        skip();
    must(w, "truncate -s 8M base; qemu-img create -f qcow2 -o cluster_size=4k -b base -F raw a");
    for (unsigned round = 1; round <= 25; round++) {
        int pipes[2];
        uint32_t ack = 0;
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            victim(w, round, pipes[1]);
        close(pipes[1]);
        while (ack < 20 + round * 7) /* each time it is somewhere else */
            assert_int_equal(read(pipes[0], &ack, sizeof(ack)), sizeof(ack));
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(pipes[0]);
        int code = sh(w, "qemu-img check -f qcow2 a");
        if (code != 0 && code != 3) /* 3: leaks, and nothing else */
            must(w, "qemu-img check -f qcow2 a");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_keeps_what_is_written_for_the_next_who_opens_it),
        cmocka_unit_test(extents_tell_data_from_holes_and_zeros),
        cmocka_unit_test(clusters_that_are_given_up_are_used_again_but_not_too_early),
        cmocka_unit_test(what_fails_is_told_and_loses_nothing_else),
        cmocka_unit_test(threads_that_want_the_same_clusters_find_what_they_wrote),
        cmocka_unit_test(what_is_wrong_is_refused_with_its_name),
        cmocka_unit_test(entries_that_point_into_tables_are_found_and_end_all_writing),
        cmocka_unit_test_setup_teardown(what_is_written_here_is_right_for_qemu_img, setup, teardown),
        cmocka_unit_test_setup_teardown(what_qemu_img_wrote_is_read_here, setup, teardown),
        cmocka_unit_test_setup_teardown(chains_are_read_through_and_snapshots_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(loops_and_strange_backing_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_else_writes_an_image_or_what_is_below_it, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_is_consistent_whenever_the_process_is_killed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
