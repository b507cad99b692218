#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/released.h"

static char folder[64], shared[96];
static const struct message_key key = { .id = { 1, 2, 3 }, .attempt = 2 };

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/godwit-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(shared, sizeof(shared), "%s/godwit", folder);
    setenv("XDG_STATE_HOME", folder, 1);
    return released_set_folder("", NULL);
}

static int drop_one(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about, (void)kind, (void)where;
    return remove(path);
}

static int drop_folder(void **state)
{
    (void)state;
    return nftw(folder, drop_one, 8, FTW_DEPTH | FTW_PHYS);
}

static unsigned files_in(const char *path)
{
    unsigned files = 0;
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        files += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return files;
}

/* What a start says; NULL: it may. */
static const char *start(const struct machine_config *guest)
{
    static struct err err;
    err_clear(&err);
    int rc = released_check(guest, &err);
    assert_true(rc == 0 || rc == -EPERM);
    return rc == 0 ? NULL : err.text;
}

static void a_note_of_its_own_folder_forbids_a_start_until_it_is_gone(void **state)
{
    (void)state;
    struct machine_config guest = { 0 };
    char own[96], path[RELEASED_PATH_MAX];
    snprintf(own, sizeof(own), "%s/one/guest", folder);
    assert_int_equal(released_set_folder(own, NULL), 0);
    assert_null(start(&guest)); /* there is no such folder yet */
    assert_int_equal(released_write(&key, "RELEASED", "tcp:there:1", &guest, path, NULL), 0);
    const char *why = start(&guest);
    assert_non_null(why);
    assert_non_null(strstr(why, path));
    assert_non_null(strstr(why, "tcp:there:1"));
    released_forget(path);
    assert_null(start(&guest));
    assert_int_equal(files_in(own), 0);
}

static void what_was_refused_here_forbids_nothing(void **state)
{
    (void)state;
    struct machine_config guest = { .name = "one" };
    char path[RELEASED_PATH_MAX];
    assert_int_equal(released_write(&key, "REFUSED", "tcp:there:1", &guest, path, NULL), 0);
    assert_null(start(&guest));
}

static void half_a_note_forbids_nothing_and_goes_from_its_own_folder(void **state)
{
    (void)state;
    struct machine_config guest = { 0 };
    char path[RELEASED_PATH_MAX];
    assert_int_equal(released_set_folder(folder, NULL), 0);
    snprintf(path, sizeof(path), "%s/released-00.new", folder);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_null(start(&guest));
    assert_int_equal(files_in(folder), 0);
}

static void among_others_notes_only_its_own_name_uuid_or_disk_forbid_it(void **state)
{
    (void)state;
    char path[RELEASED_PATH_MAX], image[96];
    snprintf(image, sizeof(image), "%s/image", folder);
    close(open(image, O_CREAT | O_WRONLY, 0600));
    struct machine_config guest = { .name = "one", .uuid = { 7 }, .uuid_set = true, .drives = 1 }, other = { 0 };
    strcpy(guest.drive[0].file, image);
    assert_int_equal(released_write(&key, "RELEASED", "tcp:there:1", &guest, path, NULL), 0);
    assert_null(start(&other));
    strcpy(other.name, "on");
    other.uuid_set = true;
    assert_null(start(&other));
    strcpy(other.name, "one");
    assert_non_null(start(&other));
    strcpy(other.name, "another");
    other.uuid[0] = 7;
    assert_non_null(start(&other));
    other.uuid_set = false;
    assert_null(start(&other));
    other.drives = 1;
    snprintf(other.drive[0].file, sizeof(other.drive[0].file), "%s/godwit/../image", folder);
    assert_non_null(start(&other));
    other.drive[0].readonly = true;
    assert_null(start(&other));
}

static void where_it_cannot_be_written_nothing_is_left_of_it(void **state)
{
    (void)state;
    struct machine_config guest = { 0 };
    struct err err = { 0 };
    char file[96], path[RELEASED_PATH_MAX];
    snprintf(file, sizeof(file), "%s/file", folder);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(released_set_folder(file, NULL), 0);
    assert_true(released_write(&key, "RELEASED", "tcp:there:1", &guest, path, &err) < 0);
    assert_non_null(strstr(err.text, file));
    released_forget(path);
    assert_int_equal(files_in(folder), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_note_of_its_own_folder_forbids_a_start_until_it_is_gone, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(what_was_refused_here_forbids_nothing, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(half_a_note_forbids_nothing_and_goes_from_its_own_folder, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(among_others_notes_only_its_own_name_uuid_or_disk_forbid_it, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(where_it_cannot_be_written_nothing_is_left_of_it, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
