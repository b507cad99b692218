#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/nbd_export.h"

/* The server is qemu-nbd, on a unix socket; it says that it listens by writing its pid file. */
enum { BYTES = 4 * 1024 * 1024, PATH_BYTES = 64, BUFFER_BYTES = 3 * 1024 * 1024, PATIENCE_MS = 60000 };

struct world {
    char folder[PATH_BYTES], path[2 * PATH_BYTES], socket[2 * PATH_BYTES], pid_file[2 * PATH_BYTES],
        uri[3 * PATH_BYTES];
    pid_t server;
    bool readonly;
};

static void serve(struct world *w)
{
    unlink(w->pid_file);
    w->server = fork();
    assert_true(w->server >= 0);
    if (w->server == 0) {
        execlp("qemu-nbd", "qemu-nbd", "-f", "raw", "-t", "-e", "8", "-k", w->socket, "--pid-file", w->pid_file,
               w->readonly ? "-r" : "--discard=unmap", "--", w->path, (char *)NULL);
        _exit(127);
    }
    for (int waited_ms = 0; access(w->pid_file, F_OK) != 0; waited_ms += 10) {
        int status;
        if (waitpid(w->server, &status, WNOHANG) == w->server) {
            w->server = 0;
            return; /* there is no such program: need_server() skips */
        }
        if (waited_ms > PATIENCE_MS)
            fail_msg("qemu-nbd does not listen");
        poll(NULL, 0, 10);
    }
}

static void end_server(struct world *w)
{
    if (w->server > 0) {
        kill(w->server, SIGKILL);
        waitpid(w->server, NULL, 0);
    }
    w->server = 0;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    snprintf(w->folder, sizeof(w->folder), "/var/tmp/godwit-nbd-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, sizeof(w->path), "%s/disk", w->folder);
    snprintf(w->socket, sizeof(w->socket), "%s/socket", w->folder);
    snprintf(w->pid_file, sizeof(w->pid_file), "%s/pid", w->folder);
    snprintf(w->uri, sizeof(w->uri), "nbd+unix:///?socket=%s", w->socket);
    int fd = open(w->path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    close(fd);
    serve(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    end_server(w);
    unlink(w->path);
    unlink(w->socket);
    unlink(w->pid_file);
    rmdir(w->folder);
    free(w);
    return 0;
}

static struct block_image *opened(const struct world *w)
{
    struct block_options options = { .name = "disk" };
    struct block_image *image;
    struct err err = { 0 };
    if (w->server <= 0)
        skip();
    if (nbd_export_open(w->uri, &options, &image, &err) < 0)
        fail_msg("%s", err.text);
    return image;
}

static void fill(uint8_t *bytes, size_t count, uint8_t seed)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 9) + seed);
}

static void what_was_written_is_read_back_in_pieces(void **state)
{
    struct block_image *image = opened(*state);
    uint8_t *out = malloc(BUFFER_BYTES), *in = calloc(1, BUFFER_BYTES);
    fill(out, BUFFER_BYTES, 1);
    assert_int_equal(image->bytes, BYTES);
    for (size_t done = 0; done < BUFFER_BYTES;) { /* as block.c goes on where a driver stopped */
        struct iovec iov[2] = { { out + done, 512 }, { out + done + 512, BUFFER_BYTES - done - 512 } };
        ssize_t part = image->driver->write(image, 4096 + done, iov, 2);
        assert_true(part > 512);
        done += (size_t)part;
    }
    for (size_t done = 0; done < BUFFER_BYTES;) {
        struct iovec iov[2] = { { in + done, 512 }, { in + done + 512, BUFFER_BYTES - done - 512 } };
        ssize_t part = image->driver->read(image, 4096 + done, iov, 2);
        assert_true(part > 512);
        done += (size_t)part;
    }
    assert_memory_equal(in, out, BUFFER_BYTES);
    assert_int_equal(image->driver->flush(image), 0);
    uint8_t last[1024];
    struct iovec end = { last, sizeof(last) };
    assert_int_equal(image->driver->read(image, BYTES - 512, &end, 1), 512);
    assert_int_equal(image->driver->read(image, BYTES, &end, 1), 0);
    image->driver->free(image);
    free(out);
    free(in);
}

static void holes_are_told_and_made(void **state)
{
    struct block_image *image = opened(*state);
    uint8_t data[65536];
    struct iovec iov = { data, sizeof(data) };
    uint64_t bytes;
    bool is_data;
    fill(data, sizeof(data), 3);
    assert_int_equal(image->driver->write(image, 1 << 20, &iov, 1), sizeof(data));
    assert_int_equal(image->driver->extent(image, 1 << 20, &bytes, &is_data), 0);
    assert_true(is_data && bytes >= sizeof(data));
    assert_int_equal(image->driver->extent(image, 0, &bytes, &is_data), 0);
    assert_false(is_data);
    assert_int_equal(bytes, 1 << 20);
    assert_int_equal(image->driver->zero(image, 1 << 20, sizeof(data), true), 0);
    assert_int_equal(image->driver->extent(image, 0, &bytes, &is_data), 0);
    assert_false(is_data);
    assert_true(bytes > 1 << 20);
    iov = (struct iovec){ data, sizeof(data) };
    assert_int_equal(image->driver->read(image, 1 << 20, &iov, 1), sizeof(data));
    for (size_t i = 0; i < sizeof(data); i++)
        assert_int_equal(data[i], 0);
    image->driver->free(image);
}

static void a_server_that_comes_back_is_found_again(void **state)
{
    struct world *w = *state;
    struct block_image *image = opened(w);
    uint8_t data[4096], back[4096];
    struct iovec iov = { data, sizeof(data) };
    fill(data, sizeof(data), 9);
    assert_int_equal(image->driver->write(image, 0, &iov, 1), sizeof(data));
    end_server(w);
    unlink(w->socket);
    int failed = 0; /* at most every connection learns once that it is lost */
    iov = (struct iovec){ back, sizeof(back) };
    for (int i = 0; i < BLOCK_THREADS + 1; i++)
        failed += image->driver->read(image, 0, &iov, 1) < 0;
    assert_int_equal(failed, BLOCK_THREADS + 1);
    serve(w);
    assert_int_equal(image->driver->read(image, 0, &iov, 1), sizeof(back));
    assert_memory_equal(back, data, sizeof(data));
    /* What it had acknowledged and not made durable may be gone: here it was not, but nobody can know. */
    assert_int_equal(image->driver->flush(image), -EIO);
    image->driver->free(image);
}

static void what_was_durable_is_not_lost_with_a_server(void **state)
{
    struct world *w = *state;
    struct block_image *image = opened(w);
    uint8_t data[4096];
    struct iovec iov = { data, sizeof(data) };
    fill(data, sizeof(data), 5);
    assert_int_equal(image->driver->write(image, 0, &iov, 1), sizeof(data));
    assert_int_equal(image->driver->flush(image), 0);
    end_server(w);
    unlink(w->socket);
    for (int i = 0; i < BLOCK_THREADS; i++)
        assert_true(image->driver->read(image, 0, &iov, 1) < 0);
    serve(w);
    assert_int_equal(image->driver->flush(image), 0);
    image->driver->free(image);
}

static void what_cannot_be_is_refused_with_its_uri(void **state)
{
    struct world *w = *state;
    struct block_options options = { .name = "disk" };
    struct block_image *image;
    struct err err = { 0 };
    if (w->server <= 0)
        skip();
    assert_true(nbd_export_open("nbd+unix:///?socket=/nowhere/at/all", &options, &image, &err) < 0);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    end_server(w);
    unlink(w->socket);
    w->readonly = true;
    serve(w);
    err_clear(&err);
    assert_int_equal(nbd_export_open(w->uri, &options, &image, &err), -EROFS);
    assert_non_null(strstr(err.text, "readonly=on"));
    options.readonly = true;
    assert_int_equal(nbd_export_open(w->uri, &options, &image, &err), 0);
    image->driver->free(image);
    assert_true(nbd_export_is_uri("nbds://host:1/name") && !nbd_export_is_uri("/nbd://") && !nbd_export_is_uri("nbd"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_written_is_read_back_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(holes_are_told_and_made, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_comes_back_is_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_durable_is_not_lost_with_a_server, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_is_refused_with_its_uri, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
