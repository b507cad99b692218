#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/image_lock.h"

struct world {
    char path[64];
    int ours, theirs; /* two programs' ends, as far as these locks go */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    strcpy(w->path, "/tmp/godwit-lock-XXXXXX");
    w->ours = mkstemp(w->path);
    w->theirs = open(w->path, O_RDWR | O_CLOEXEC);
    assert_true(w->ours >= 0 && w->theirs >= 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    unlink(w->path);
    close(w->ours);
    close(w->theirs);
    free(w);
    return 0;
}

/* 'r' shared, 'w' exclusive, '-' none: what another sees of a byte. */
static char seen(int fd, off_t byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    return lock.l_type == F_UNLCK ? '-' : lock.l_type == F_RDLCK ? 'r' : 'w';
}

static int hold(int fd, short type, off_t byte)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    return fcntl(fd, F_OFD_SETLK, &lock);
}

static void expect(int fd, const char *does, const char *forbids)
{
    for (int i = 0; i < 4; i++) {
        assert_int_equal(seen(fd, 100 + i), does[i]);
        assert_int_equal(seen(fd, 200 + i), forbids[i]);
    }
}

static void a_writer_says_that_it_reads_and_writes_and_forbids_writing(void **state)
{
    const struct world *w = *state;
    assert_int_equal(image_lock_take(w->ours, true, w->path, NULL), 0);
    expect(w->theirs, "rr--", "-r--");
    assert_true(image_lock_elsewhere(w->theirs));
    image_lock_let_go(w->ours);
    expect(w->theirs, "----", "----");
    assert_false(image_lock_elsewhere(w->theirs));
}

static void a_reader_says_that_it_reads_and_forbids_writing(void **state)
{
    const struct world *w = *state;
    assert_int_equal(image_lock_take(w->ours, false, w->path, NULL), 0);
    expect(w->theirs, "r---", "-r--");
}

/* What other programs say, one byte each, and whether a writer and a reader may come. */
static void what_others_do_and_forbid_is_respected(void **state)
{
    static const struct {
        off_t byte;
        bool writer, reader;
    } cases[] = {
        { 100, true, true },   /* reads */
        { 101, false, false }, /* writes */
        { 102, true, true },   /* writes what is there already */
        { 103, true, true },   /* may change the size */
        { 200, false, false }, /* forbids reading */
        { 201, false, true },  /* forbids writing */
        { 202, true, true },   { 203, true, true },
    };
    const struct world *w = *state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hold(w->theirs, F_RDLCK, cases[i].byte), 0);
        assert_int_equal(image_lock_take(w->ours, true, w->path, NULL), cases[i].writer ? 0 : -EBUSY);
        image_lock_let_go(w->ours);
        assert_int_equal(image_lock_take(w->ours, false, w->path, NULL), cases[i].reader ? 0 : -EBUSY);
        image_lock_let_go(w->ours);
        assert_int_equal(hold(w->theirs, F_UNLCK, cases[i].byte), 0);
    }
}

static void an_exclusive_lock_of_somebody_else_is_respected_and_nothing_stays_behind(void **state)
{
    const struct world *w = *state;
    struct err err = { 0 };
    assert_int_equal(hold(w->theirs, F_WRLCK, 201), 0);
    assert_int_equal(image_lock_take(w->ours, true, w->path, &err), -EBUSY);
    assert_non_null(strstr(err.text, w->path));
    assert_int_equal(hold(w->theirs, F_UNLCK, 201), 0);
    expect(w->theirs, "----", "----");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_writer_says_that_it_reads_and_writes_and_forbids_writing),
        T(a_reader_says_that_it_reads_and_forbids_writing),
        T(what_others_do_and_forbid_is_respected),
        T(an_exclusive_lock_of_somebody_else_is_respected_and_nothing_stays_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
