/* Who is let in as a data channel, and who is sent away. One end in a thread, the other by hand. */
#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migration/channels.h"

enum { PATIENCE_MS = 60000 };

static const struct message_key ours = { .id = { 1, 2, 3 }, .attempt = 1 };

/* A destination that waits for data channels. */
struct place {
    char folder[64], uri[96];
    struct channel_listener *listener;
    struct channel *main_there, *main_here;
    int abort_fd, patience_ms;
    unsigned count;
    pthread_t thread;
    /* owner: its thread, until it is joined */
    struct channels data;
    struct err err;
    int rc;
};

static void *gather_run(void *opaque)
{
    struct place *p = opaque;
    p->rc = channels_gather(NULL, p->listener, p->main_there, p->abort_fd, &ours, p->count, p->patience_ms, &p->data,
                            &p->err);
    return NULL;
}

static void lay_out(struct place *p, unsigned count, int patience_ms)
{
    *p = (struct place){ .count = count, .patience_ms = patience_ms, .abort_fd = eventfd(0, EFD_CLOEXEC) };
    strcpy(p->folder, "/tmp/godwit-test-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->uri, sizeof(p->uri), "unix:%s/place", p->folder);
    assert_int_equal(channel_listen(p->uri, &p->listener, NULL), 0);
    assert_int_equal(channel_connect(p->uri, -1, &p->main_here, NULL), 0);
    assert_int_equal(channel_accept(p->listener, -1, &p->main_there, NULL), 0);
}

static void open_place(struct place *p, unsigned count, int patience_ms)
{
    lay_out(p, count, patience_ms);
    assert_int_equal(pthread_create(&p->thread, NULL, gather_run, p), 0);
}

static int join(struct place *p)
{
    pthread_join(p->thread, NULL);
    return p->rc;
}

static void close_place(struct place *p)
{
    channels_close(&p->data);
    channel_close(p->main_here);
    channel_close(p->main_there);
    channel_listener_close(p->listener);
    close(p->abort_fd);
    rmdir(p->folder);
}

/* A connection that begins with such a message; what the answer to it is. */
static struct channel *call(struct place *p, enum message_type type, const struct message_key *key, unsigned number,
                            unsigned count, char *sentence, size_t size)
{
    struct channel *line;
    struct message *answer = malloc(sizeof(*answer));
    struct buf out = { 0 };
    uint8_t payload[8];
    be32_put(payload, number);
    be32_put(payload + 4, count);
    message_put(&out, type, key, payload, sizeof(payload));
    assert_int_equal(channel_connect(p->uri, -1, &line, NULL), 0);
    assert_int_equal(channel_write_all(line, out.data, out.size, -1, NULL), 0);
    assert_int_equal(message_read(line, false, answer, PATIENCE_MS, NULL), 0);
    assert_true(message_key_equal(&answer->key, key)); /* a stranger is not told our id */
    sentence[0] = '\0';
    if (answer->type == MESSAGE_REFUSAL)
        message_sentence(answer, sentence, size);
    else
        assert_int_equal(answer->type, MESSAGE_CHANNEL);
    buf_free(&out);
    free(answer);
    return line;
}

static void sent_away(struct place *p, enum message_type type, const struct message_key *key, unsigned number,
                      unsigned count, const char *why)
{
    char sentence[MESSAGE_SENTENCE_MAX + 1];
    uint8_t byte;
    struct channel *line = call(p, type, key, number, count, sentence, sizeof(sentence));
    if (!strstr(sentence, why))
        fail_msg("the answer is \"%s\", not \"%s\"", sentence, why);
    assert_int_equal(channel_read_all(line, &byte, 1, -1, NULL), -EPIPE); /* and hung up on */
    channel_close(line);
}

static struct channel *let_in(struct place *p, unsigned number, unsigned count)
{
    char sentence[MESSAGE_SENTENCE_MAX + 1];
    struct channel *line = call(p, MESSAGE_CHANNEL, &ours, number, count, sentence, sizeof(sentence));
    assert_string_equal(sentence, "");
    return line;
}

static void channels_may_come_in_any_order(void **state)
{
    struct place p;
    struct channel *line[3];
    static const unsigned order[] = { 3, 1, 2 };
    (void)state;

    open_place(&p, 3, PATIENCE_MS);
    for (unsigned i = 0; i < 3; i++)
        line[i] = let_in(&p, order[i], 3);
    assert_int_equal(join(&p), 0);
    assert_int_equal(p.data.count, 3);
    for (unsigned i = 0; i < 3; i++) { /* each is where it belongs */
        uint8_t byte = 0;
        assert_int_equal(channel_write_all(line[i], &(uint8_t){ (uint8_t)order[i] }, 1, -1, NULL), 0);
        assert_int_equal(channel_read_all(p.data.data[order[i] - 1], &byte, 1, -1, NULL), 0);
        assert_int_equal(byte, order[i]);
        channel_close(line[i]);
    }
    close_place(&p);
}

static void strangers_and_what_is_stale_are_sent_away_and_disturb_nobody(void **state)
{
    struct place p;
    struct message_key stranger = { .id = { 9 }, .attempt = 1 }, stale = ours, nearly = ours;
    struct channel *silent, *half, *one, *two;
    (void)state;

    stale.attempt = 2;
    nearly.id[MESSAGE_ID_BYTES - 1] ^= 1;
    open_place(&p, 2, PATIENCE_MS);
    assert_int_equal(channel_connect(p.uri, -1, &silent, NULL), 0); /* and says nothing, all the time */
    assert_int_equal(channel_connect(p.uri, -1, &half, NULL), 0);
    one = let_in(&p, 1, 2);
    sent_away(&p, MESSAGE_CHANNEL, &stranger, 2, 2, "another migration");
    sent_away(&p, MESSAGE_CHANNEL, &stale, 2, 2, "another migration");
    sent_away(&p, MESSAGE_CHANNEL, &nearly, 2, 2, "another migration");
    sent_away(&p, MESSAGE_HELLO, &ours, 2, 2, "another migration");
    assert_int_equal(channel_write_all(half, "GDWT", 4, -1, NULL), 0);
    channel_close(half); /* in the middle of a word */
    uint8_t byte;
    assert_int_equal(channel_read_all(silent, &byte, 1, -1, NULL), -EPIPE); /* its time is up, and the wait goes on */
    two = let_in(&p, 2, 2);
    assert_int_equal(join(&p), 0);
    channel_close(silent);
    channel_close(one);
    channel_close(two);
    close_place(&p);
}

static void a_number_twice_or_out_of_range_is_refused(void **state)
{
    struct place p;
    struct channel *one, *two;
    (void)state;

    open_place(&p, 2, PATIENCE_MS);
    one = let_in(&p, 1, 2);
    sent_away(&p, MESSAGE_CHANNEL, &ours, 1, 2, "data channel 1 of 2 came twice");
    sent_away(&p, MESSAGE_CHANNEL, &ours, 0, 2, "data channel 0 of 2: there are to be 2");
    sent_away(&p, MESSAGE_CHANNEL, &ours, 3, 2, "data channel 3 of 2: there are to be 2");
    sent_away(&p, MESSAGE_CHANNEL, &ours, UINT32_MAX, 2, "there are to be 2");
    sent_away(&p, MESSAGE_CHANNEL, &ours, 2, 3, "data channel 2 of 3: there are to be 2");
    two = let_in(&p, 2, 2);
    assert_int_equal(join(&p), 0);
    channel_close(one);
    channel_close(two);
    close_place(&p);
}

static void a_crowd_that_says_nothing_does_not_keep_the_source_out(void **state)
{
    struct place p;
    struct channel *silent[30], *one;
    (void)state;

    open_place(&p, 1, PATIENCE_MS);
    for (unsigned i = 0; i < 30; i++)
        assert_int_equal(channel_connect(p.uri, -1, &silent[i], NULL), 0);
    one = let_in(&p, 1, 1);
    assert_int_equal(join(&p), 0);
    for (unsigned i = 0; i < 30; i++)
        channel_close(silent[i]);
    channel_close(one);
    close_place(&p);
}

/* Each has begun a word: whoever waited a second for every one of them would miss the source. */
static void a_crowd_that_stops_in_the_middle_of_a_word_does_not_keep_the_source_out(void **state)
{
    enum { CROWD = 20, LIMIT_MS = 10000 };
    struct place p;
    struct channel *half[CROWD], *one;
    (void)state;

    open_place(&p, 1, LIMIT_MS);
    for (unsigned i = 0; i < CROWD; i++) {
        assert_int_equal(channel_connect(p.uri, -1, &half[i], NULL), 0);
        assert_int_equal(channel_write_all(half[i], "GDWT", 4, -1, NULL), 0);
    }
    one = let_in(&p, 1, 1);
    assert_int_equal(join(&p), 0);
    for (unsigned i = 0; i < CROWD; i++)
        channel_close(half[i]);
    channel_close(one);
    close_place(&p);
}

/* There is somebody at the door at every look, and behind them the source, too late. */
static void strangers_who_come_and_go_do_not_make_the_wait_longer(void **state)
{
    enum { STRANGERS = 12 };
    struct place p;
    struct channel *line[STRANGERS + 1];
    struct buf word = { 0 };
    uint8_t payload[8];
    (void)state;

    lay_out(&p, 1, 0);
    be32_put(payload, 1);
    be32_put(payload + 4, 1);
    message_put(&word, MESSAGE_CHANNEL, &ours, payload, sizeof(payload));
    for (unsigned i = 0; i <= STRANGERS; i++)
        assert_int_equal(channel_connect(p.uri, -1, &line[i], NULL), 0);
    assert_int_equal(channel_write_all(line[STRANGERS], word.data, word.size, -1, NULL), 0);
    gather_run(&p);
    assert_int_equal(p.rc, -ETIMEDOUT);
    for (unsigned i = 0; i <= STRANGERS; i++)
        channel_close(line[i]);
    buf_free(&word);
    close_place(&p);
}

static void the_wait_has_a_limit_and_says_what_was_missing(void **state)
{
    struct place p;
    struct message_key stranger = { .id = { 9 }, .attempt = 1 };
    (void)state;

    open_place(&p, 2, 2000);
    struct channel *one = let_in(&p, 1, 2);
    sent_away(&p, MESSAGE_CHANNEL, &stranger, 2, 2, "another migration");
    assert_int_equal(join(&p), -ETIMEDOUT);
    assert_string_equal(p.err.text,
                        "1 of 2 data channels came; the last that was refused: it waits for the data channels "
                        "of another migration");
    assert_int_equal(p.data.count, 0);
    channel_close(one);
    close_place(&p);
}

static void a_source_that_goes_ends_the_wait(void **state)
{
    struct place p;
    (void)state;

    open_place(&p, 2, PATIENCE_MS);
    channel_shutdown(p.main_here);
    assert_int_equal(join(&p), -EPIPE);
    assert_non_null(strstr(p.err.text, "0 of 2"));
    close_place(&p);
}

static void cancel_ends_the_wait(void **state)
{
    struct place p;
    (void)state;

    open_place(&p, 2, PATIENCE_MS);
    assert_int_equal(eventfd_write(p.abort_fd, 1), 0);
    assert_int_equal(join(&p), -ECANCELED);
    close_place(&p);
}

static void both_ends_find_each_other(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= PIPELINE_CHANNELS_MAX; count *= 4) {
        struct place p;
        struct channels data = { 0 };
        struct err err = { 0 };

        open_place(&p, count, PATIENCE_MS);
        if (channels_connect(NULL, p.uri, p.main_here, -1, &ours, count, PATIENCE_MS, &data, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(join(&p), 0);
        assert_int_equal(data.count, count);
        assert_int_equal(p.data.count, count);
        channels_close(&data);
        close_place(&p);
    }
}

static void a_source_hears_why_it_was_refused(void **state)
{
    struct place p;
    struct channels data = { 0 };
    struct err err = { 0 };
    struct message_key stale = ours;
    (void)state;

    stale.attempt = 7;
    open_place(&p, 2, PATIENCE_MS);
    assert_int_equal(channels_connect(NULL, p.uri, p.main_here, -1, &stale, 2, PATIENCE_MS, &data, &err), -EREMOTEIO);
    assert_string_equal(err.text, "the destination refuses: it waits for the data channels of another migration");
    channels_close(&data);
    channel_shutdown(p.main_here);
    assert_int_equal(join(&p), -EPIPE);
    close_place(&p);
}

static void a_source_is_patient_only_so_long_and_can_be_called_off(void **state)
{
    struct place p;
    struct channels data = { 0 };
    struct err err = { 0 };
    (void)state;

    open_place(&p, 1, PATIENCE_MS);
    channel_shutdown(p.main_here);
    assert_int_equal(join(&p), -EPIPE); /* nobody answers there any more */
    channel_close(p.main_here);
    channel_close(p.main_there);
    assert_int_equal(channel_connect(p.uri, -1, &p.main_here, NULL), 0);
    assert_int_equal(channel_accept(p.listener, -1, &p.main_there, NULL), 0);
    assert_int_equal(channels_connect(NULL, p.uri, p.main_here, -1, &ours, 1, 50, &data, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "data channel 1: no answer"));
    channels_close(&data);
    err_clear(&err);
    int called_off = eventfd(1, EFD_CLOEXEC);
    assert_int_equal(channels_connect(NULL, p.uri, p.main_here, called_off, &ours, 1, PATIENCE_MS, &data, &err),
                     -ECANCELED);
    channels_close(&data);
    close(called_off);
    close_place(&p);
}

static void only_addresses_that_can_be_called_again_take_several(void **state)
{
    struct migration_params params;
    struct err err = { 0 };
    (void)state;

    params_init(&params);
    assert_int_equal(channels_wanted(&params, "exec:cat", &err), 0);
    assert_int_equal(channels_wanted(&params, "tcp:there:1", &err), 0);
    assert_int_equal(param_set_text(&params, "multifd-channels", "4", NULL), 0);
    assert_int_equal(channels_wanted(&params, "tcp:there:1", &err), 4);
    assert_int_equal(channels_wanted(&params, "unix:/there", &err), 4);
    static const char *const one[] = { "exec:cat", "fd:3", "file:/there" };
    for (unsigned i = 0; i < 3; i++) {
        err_clear(&err);
        assert_int_equal(channels_wanted(&params, one[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, one[i]));
        assert_non_null(strstr(err.text, "4 channels"));
    }
    assert_int_equal(param_set_text(&params, "channels", "1", NULL), 0);
    assert_int_equal(capability_set(&params, "multifd", true, NULL), 0);
    assert_int_equal(channels_wanted(&params, "tcp:there:1", &err), 2);
    assert_int_equal(param_set_text(&params, "channels", "17", NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channels_may_come_in_any_order),
        cmocka_unit_test(strangers_and_what_is_stale_are_sent_away_and_disturb_nobody),
        cmocka_unit_test(a_number_twice_or_out_of_range_is_refused),
        cmocka_unit_test(a_crowd_that_says_nothing_does_not_keep_the_source_out),
        cmocka_unit_test(a_crowd_that_stops_in_the_middle_of_a_word_does_not_keep_the_source_out),
        cmocka_unit_test(strangers_who_come_and_go_do_not_make_the_wait_longer),
        cmocka_unit_test(the_wait_has_a_limit_and_says_what_was_missing),
        cmocka_unit_test(a_source_that_goes_ends_the_wait),
        cmocka_unit_test(cancel_ends_the_wait),
        cmocka_unit_test(both_ends_find_each_other),
        cmocka_unit_test(a_source_hears_why_it_was_refused),
        cmocka_unit_test(a_source_is_patient_only_so_long_and_can_be_called_off),
        cmocka_unit_test(only_addresses_that_can_be_called_again_take_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
