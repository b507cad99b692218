#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/raw.h"

enum { BYTES = 256 * 1024, PATH_BYTES = 64 };

struct world {
    char folder[PATH_BYTES], path[2 * PATH_BYTES];
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    snprintf(w->folder, sizeof(w->folder), "/var/tmp/godwit-raw-XXXXXX"); /* a real file system, where there is one */
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, sizeof(w->path), "%s/disk", w->folder);
    int fd = open(w->path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    close(fd);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    unlink(w->path);
    rmdir(w->folder);
    free(w);
    return 0;
}

static struct block_image *opened(const struct world *w, struct block_options options)
{
    struct block_image *image;
    struct err err = { 0 };
    snprintf(options.name, sizeof(options.name), "disk");
    if (raw_open(w->path, false, &options, &image, &err) < 0)
        fail_msg("%s", err.text);
    return image;
}

static int refused(const struct world *w, bool format_said, struct err *err)
{
    struct block_options options = { .name = "disk" };
    struct block_image *image;
    err_clear(err);
    int result = raw_open(w->path, format_said, &options, &image, err);
    if (result == 0)
        image->driver->free(image);
    else
        assert_non_null(strstr(err->text, w->path));
    return result;
}

static void write_bytes(struct block_image *image, uint64_t offset, uint8_t value, size_t bytes)
{
    uint8_t *data = malloc(bytes);
    struct iovec iov = { data, bytes };
    memset(data, value, bytes);
    assert_int_equal(image->driver->write(image, offset, &iov, 1), bytes);
    free(data);
}

static uint8_t byte_at(struct block_image *image, uint64_t offset)
{
    uint8_t sector[512] = { 0xee };
    struct iovec iov = { sector, sizeof(sector) };
    assert_int_equal(image->driver->read(image, offset / 512 * 512, &iov, 1), 512);
    return sector[offset % 512];
}

static void the_disk_is_as_large_as_its_file_and_sparse(void **state)
{
    struct block_image *image = opened(*state, (struct block_options){ 0 });
    uint64_t bytes;
    bool data;
    assert_int_equal(image->bytes, BYTES);
    assert_int_equal(image->sector_bytes, 512);
    assert_int_equal(image->driver->extent(image, 0, &bytes, &data), 0);
    assert_false(data);
    assert_int_equal(bytes, BYTES);
    write_bytes(image, 65536, 7, 65536);
    assert_int_equal(image->driver->flush(image), 0);
    assert_int_equal(image->driver->extent(image, 512, &bytes, &data), 0);
    assert_false(data);
    assert_int_equal(bytes, 65536 - 512);
    assert_int_equal(image->driver->extent(image, 65536 + 1024, &bytes, &data), 0);
    assert_true(data);
    assert_int_equal(bytes, 65536 - 1024);
    assert_int_equal(byte_at(image, 65536), 7);
    assert_int_equal(byte_at(image, 65535), 0);
    image->driver->free(image);
}

static void discard_gives_space_back_and_reads_as_zeros(void **state)
{
    const struct world *w = *state;
    struct block_image *image = opened(w, (struct block_options){ 0 });
    struct stat before, after;
    write_bytes(image, 0, 9, BYTES);
    assert_int_equal(image->driver->flush(image), 0);
    assert_int_equal(stat(w->path, &before), 0);
    int result = image->driver->discard(image, 65536, 131072);
    if (result == -EOPNOTSUPP)
        skip();
    assert_int_equal(result, 0);
    assert_int_equal(stat(w->path, &after), 0);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(after.st_size, BYTES);
    assert_int_equal(byte_at(image, 65535), 9);
    assert_int_equal(byte_at(image, 65536), 0);
    assert_int_equal(byte_at(image, 65536 + 131072), 9);
    image->driver->free(image);
}

static void zeroed_ranges_read_as_zeros_and_only_they(void **state)
{
    struct block_image *image = opened(*state, (struct block_options){ 0 });
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        write_bytes(image, 0, 9, BYTES);
        int result = image->driver->zero(image, 1024, 2048, unmap);
        assert_true(result == 0 || result == -EOPNOTSUPP);
        if (result < 0)
            continue;
        assert_int_equal(byte_at(image, 1023), 9);
        assert_int_equal(byte_at(image, 1024), 0);
        assert_int_equal(byte_at(image, 3071), 0);
        assert_int_equal(byte_at(image, 3072), 9);
    }
    image->driver->free(image);
}

static void direct_io_takes_memory_that_is_not_aligned(void **state)
{
    struct world *w = *state;
    struct block_options options = { .name = "disk", .cache = BLOCK_DIRECT };
    struct block_image *image;
    if (raw_open(w->path, true, &options, &image, NULL) == -EINVAL)
        skip(); /* a file system without it */
    assert_non_null(image);
    uint8_t *memory = malloc(3 * 8192 + 1), *back = malloc(3 * 8192 + 1);
    for (unsigned i = 0; i < 3 * 8192; i++)
        memory[1 + i] = (uint8_t)(i / 3);
    struct iovec out[2] = { { memory + 1, 8191 }, { memory + 1 + 8191, 2 * 8192 + 1 } };
    struct iovec in[2] = { { back + 1, 12345 }, { back + 1 + 12345, 3 * 8192 - 12345 } };
    assert_int_equal(image->driver->write(image, 4096, out, 2), 3 * 8192);
    assert_int_equal(image->driver->read(image, 4096, in, 2), 3 * 8192);
    assert_memory_equal(memory + 1, back + 1, 3 * 8192);
    free(memory);
    free(back);
    image->driver->free(image);
}

static void what_is_no_disk_is_refused(void **state)
{
    struct world *w = *state;
    struct err err = { 0 };
    char image[sizeof(w->path)];
    memcpy(image, w->path, sizeof(image));

    snprintf(w->path, sizeof(w->path), "%s/absent", w->folder);
    assert_int_equal(refused(w, true, &err), -ENOENT);
    snprintf(w->path, sizeof(w->path), "%s", w->folder);
    assert_int_equal(refused(w, true, &err), -EISDIR);
    snprintf(w->path, sizeof(w->path), "/dev/null");
    assert_int_equal(refused(w, true, &err), -EINVAL);
    snprintf(w->path, sizeof(w->path), "%s/fifo", w->folder);
    assert_int_equal(mkfifo(w->path, 0600), 0);
    assert_int_equal(refused(w, true, &err), -EINVAL);
    unlink(w->path);
    memcpy(w->path, image, sizeof(image));
    assert_int_equal(truncate(w->path, BYTES + 100), 0);
    assert_int_equal(refused(w, true, &err), -EINVAL);
    assert_non_null(strstr(err.text, "multiple of 512"));
    assert_int_equal(truncate(w->path, 0), 0);
    assert_int_equal(refused(w, true, &err), -EINVAL);
}

static void an_image_that_looks_like_another_format_needs_a_word(void **state)
{
    struct world *w = *state;
    struct err err = { 0 };
    int fd = open(w->path, O_RDWR);
    assert_int_equal(pwrite(fd, "QFI\xfb", 4, 0), 4);
    close(fd);
    assert_int_equal(refused(w, false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "qcow2"));
    assert_int_equal(refused(w, true, &err), 0);
}

static void two_writers_never_have_one_image(void **state)
{
    struct block_image *one = opened(*state, (struct block_options){ 0 });
    struct block_image *two = opened(*state, (struct block_options){ 0 });
    struct err err = { 0 };
    assert_false(one->driver->taken_elsewhere(one));
    assert_int_equal(one->driver->take(one, &err), 0);
    assert_false(one->driver->taken_elsewhere(one));
    assert_true(two->driver->taken_elsewhere(two));
    assert_int_equal(two->driver->take(two, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another program is writing it"));
    assert_false(one->driver->taken_elsewhere(one)); /* the failed one left nothing behind */
    one->driver->let_go(one);
    assert_false(two->driver->taken_elsewhere(two));
    assert_int_equal(two->driver->take(two, NULL), 0);
    assert_int_equal(one->driver->take(one, NULL), -EBUSY);
    two->driver->free(two);
    assert_int_equal(one->driver->take(one, NULL), 0);
    one->driver->free(one);
}

static void readers_go_together_but_not_with_a_writer(void **state)
{
    struct block_image *one = opened(*state, (struct block_options){ .readonly = true });
    struct block_image *two = opened(*state, (struct block_options){ .readonly = true });
    struct block_image *writer = opened(*state, (struct block_options){ 0 });
    struct err err = { 0 };
    assert_int_equal(one->driver->take(one, NULL), 0);
    assert_int_equal(two->driver->take(two, NULL), 0);
    assert_int_equal(writer->driver->take(writer, &err), -EBUSY);
    assert_non_null(strstr(err.text, "must not find it changed"));
    one->driver->free(one);
    two->driver->let_go(two);
    assert_int_equal(writer->driver->take(writer, NULL), 0);
    assert_int_equal(two->driver->take(two, NULL), -EBUSY);
    two->driver->free(two);
    writer->driver->free(writer);
}

static void what_was_written_elsewhere_meanwhile_is_seen_after_taking(void **state)
{
    const struct world *w = *state;
    struct block_image *one = opened(w, (struct block_options){ 0 });
    struct block_image *two = opened(w, (struct block_options){ 0 });
    assert_int_equal(one->driver->take(one, NULL), 0);
    write_bytes(one, 512, 0x42, 512);
    one->driver->let_go(one);
    assert_int_equal(truncate(w->path, BYTES * 2), 0);
    assert_int_equal(two->driver->take(two, NULL), 0);
    assert_int_equal(byte_at(two, 512), 0x42);
    assert_int_equal(two->bytes, BYTES * 2);
    one->driver->free(one);
    two->driver->free(two);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_disk_is_as_large_as_its_file_and_sparse),
        T(discard_gives_space_back_and_reads_as_zeros),
        T(zeroed_ranges_read_as_zeros_and_only_they),
        T(direct_io_takes_memory_that_is_not_aligned),
        T(what_is_no_disk_is_refused),
        T(an_image_that_looks_like_another_format_needs_a_word),
        T(two_writers_never_have_one_image),
        T(readers_go_together_but_not_with_a_writer),
        T(what_was_written_elsewhere_meanwhile_is_seen_after_taking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
