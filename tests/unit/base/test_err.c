#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

static void the_sentence_and_its_code_are_kept(void **state)
{
    (void)state;
    struct err err = { 0 };
    assert_int_equal(err_set(&err, -EINVAL, "%d is not %s", 5, "four"), -EINVAL);
    assert_int_equal(err.code, -EINVAL);
    assert_string_equal(err.text, "5 is not four");
}

static void the_first_error_stays(void **state)
{
    (void)state;
    struct err err = { 0 };
    err_set(&err, -EIO, "first");
    assert_int_equal(err_set(&err, -EPIPE, "second"), -EPIPE);
    assert_int_equal(err_set_errno(&err, -ENOENT, "third"), -ENOENT);
    assert_int_equal(err.code, -EIO);
    assert_string_equal(err.text, "first");
}

static void an_errno_is_spelled_out(void **state)
{
    (void)state;
    struct err err = { 0 };
    assert_int_equal(err_set_errno(&err, -ENOENT, "cannot open %s", "x"), -ENOENT);
    assert_string_equal(err.text, "cannot open x: No such file or directory");
}

static void prefixes_are_put_before_it_outermost_first(void **state)
{
    (void)state;
    struct err err = { 0 };
    err_set(&err, -EPROTO, "too short");
    assert_int_equal(err_prefix(&err, "field %s", "x"), -EPROTO);
    assert_int_equal(err_prefix(&err, "section %s", "y"), -EPROTO);
    assert_string_equal(err.text, "section y: field x: too short");
}

static void nobody_listening_is_no_reason_to_report_success(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, -EINVAL, "x"), -EINVAL);
    assert_int_equal(err_set_errno(NULL, -ENOENT, "x"), -ENOENT);
    assert_true(err_prefix(NULL, "x") < 0);
    err_clear(NULL);
}

/* Each way to write, with more text than there is room for. */
static void a_sentence_too_long_is_cut_and_keeps_its_beginning(void **state)
{
    (void)state;
    char longer[2 * ERR_TEXT_MAX];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';

    struct err err = { 0 };
    err_set(&err, -EINVAL, "%s", longer);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);

    err_prefix(&err, "where");
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    assert_int_equal(strncmp(err.text, "where: aaa", 10), 0);

    assert_int_equal(err_prefix(&err, "%s", longer), -EINVAL);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);

    err_clear(&err);
    err_set_errno(&err, -EIO, "%s", longer);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
}

static void a_cleared_err_takes_a_new_error(void **state)
{
    (void)state;
    struct err err = { 0 };
    err_set(&err, -EIO, "first");
    err_clear(&err);
    assert_int_equal(err.code, 0);
    assert_string_equal(err.text, "");
    err_set(&err, -EPIPE, "second");
    assert_string_equal(err.text, "second");
}

static void strange_words_do_not_reach_a_terminal(void **state)
{
    (void)state;
    char out[16];
    err_printable("a\x1b[K~", 5, out, sizeof(out));
    assert_string_equal(out, "a\\x1b[K~");
    err_printable("\x7f\x80\xff\n", 4, out, sizeof(out)); /* sixteen bytes do not fit with their end */
    assert_string_equal(out, "\\x7f\\x80\\xff");
    err_printable("ab\0cd", 5, out, sizeof(out));
    assert_string_equal(out, "ab");
    err_printable("abcd", 2, out, sizeof(out));
    assert_string_equal(out, "ab");
    err_printable("abcd", 4, out, 3);
    assert_string_equal(out, "ab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sentence_and_its_code_are_kept),
        cmocka_unit_test(the_first_error_stays),
        cmocka_unit_test(an_errno_is_spelled_out),
        cmocka_unit_test(prefixes_are_put_before_it_outermost_first),
        cmocka_unit_test(nobody_listening_is_no_reason_to_report_success),
        cmocka_unit_test(a_sentence_too_long_is_cut_and_keeps_its_beginning),
        cmocka_unit_test(a_cleared_err_takes_a_new_error),
        cmocka_unit_test(strange_words_do_not_reach_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
