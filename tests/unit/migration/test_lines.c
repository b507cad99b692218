/* Lines that belong together, and lines that somebody would like to splice in. */
#include "tests/unit/base/tls_files.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "migration/lines.h"

enum { PATIENCE_MS = 60000 };

static struct tls_files files;
static const struct message_key ours = { .id = { 1, 2, 3 }, .attempt = 1 };

static int set_up(void **state)
{
    (void)state;
    tls_files_make(&files);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tls_files_remove(&files);
    return 0;
}

/* Both sides of one migration. */
struct sides {
    struct lines source, destination;
};

struct line {
    struct channel *here, *there;
};

static struct channel *over_fd(int fd)
{
    char uri[32];
    struct channel *channel;
    snprintf(uri, sizeof(uri), "fd:%d", fd);
    assert_int_equal(channel_connect(uri, -1, &channel, NULL), 0);
    return channel;
}

static void open_line(struct sides *s, struct line *line)
{
    int fd[2], here = -ETIMEDOUT, there = -ETIMEDOUT;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(channel_tls_new(over_fd(fd[0]), s->source.creds, "", NULL, &line->here, NULL), 0);
    assert_int_equal(channel_tls_new(over_fd(fd[1]), s->destination.creds, "", NULL, &line->there, NULL), 0);
    for (int i = 0; i < 100 && (here || there); i++) {
        here = channel_tls_handshake(line->here, -1, 0, NULL);
        there = channel_tls_handshake(line->there, -1, 0, NULL);
    }
    assert_int_equal(here | there, 0);
}

static void close_line(struct line *line)
{
    channel_close(line->here);
    channel_close(line->there);
}

static void begin(struct sides *s, struct line *main)
{
    *s = (struct sides){ .destination.incoming = true };
    s->source.creds = tls_files_creds(&files, false, false);
    s->destination.creds = tls_files_creds(&files, false, true);
    open_line(s, main);
    lines_bind(&s->source, main->here);
    lines_bind(&s->destination, main->there);
}

static void end(struct sides *s, struct line *main)
{
    close_line(main);
    lines_end(&s->source);
    lines_end(&s->destination);
}

/* `says` puts a message on its end of a line; is it good for `hears`, at that end? */
static bool is_believed(struct lines *says, struct channel *from, struct lines *hears, struct channel *at,
                        uint8_t spoil)
{
    static struct message message;
    struct buf out = { 0 };
    uint8_t payload[8] = { 0, 0, 0, 1, 0, 0, 0, 4 };
    lines_put(says, from, &out, MESSAGE_CHANNEL, &ours, payload, sizeof(payload));
    message = (struct message){ .type = MESSAGE_CHANNEL, .key = ours };
    message.bytes = (uint32_t)(out.size - MESSAGE_HEAD_BYTES - 8);
    memcpy(message.payload, out.data + MESSAGE_HEAD_BYTES, message.bytes);
    message.payload[3] ^= spoil;
    buf_free(&out);
    bool good = lines_check(hears, at, &message);
    return good && message.bytes == sizeof(payload) && memcmp(message.payload, payload, sizeof(payload)) == 0;
}

static void a_line_between_the_same_two_ends_is_believed(void **state)
{
    (void)state;
    struct sides s;
    struct line main, data;
    begin(&s, &main);
    open_line(&s, &data);
    assert_true(is_believed(&s.source, data.here, &s.destination, data.there, 0));
    assert_true(is_believed(&s.destination, data.there, &s.source, data.here, 0));
    assert_false(is_believed(&s.source, data.here, &s.destination, data.there, 1)); /* another number */
    close_line(&data);
    end(&s, &main);
}

/* Valid credentials, a line of his own, and even the id: he has not been there when the main channel was made. */
static void nobody_splices_a_line_in(void **state)
{
    (void)state;
    struct sides s, stranger;
    struct line main, data, theirs, other;
    begin(&s, &main);
    begin(&stranger, &theirs);
    open_line(&s, &data);
    open_line(&s, &other);
    assert_false(is_believed(&stranger.source, data.here, &s.destination, data.there, 0));
    assert_false(
        is_believed(&s.source, other.here, &s.destination, data.there, 0)); /* carried over from another line */
    assert_false(is_believed(&s.destination, data.there, &s.destination, data.there, 0)); /* our own words, sent back */
    struct message bare = { .type = MESSAGE_RESUME, .key = ours };
    assert_false(lines_check(&s.destination, data.there, &bare));
    close_line(&data);
    close_line(&other);
    end(&stranger, &theirs);
    end(&s, &main);
}

static void plain_lines_are_as_they_were(void **state)
{
    (void)state;
    struct lines plain = { .creds = NULL };
    struct message message = { .type = MESSAGE_RESUME, .key = ours };
    struct buf with = { 0 }, without = { 0 };
    lines_put(&plain, NULL, &with, MESSAGE_RESUME, &ours, NULL, 0);
    message_put(&without, MESSAGE_RESUME, &ours, NULL, 0);
    assert_int_equal(with.size, without.size);
    assert_memory_equal(with.data, without.data, with.size);
    assert_true(lines_check(NULL, NULL, &message));
    assert_true(lines_check(&plain, NULL, &message));
    buf_free(&with);
    buf_free(&without);
}

static void parameters_name_objects_of_the_right_side(void **state)
{
    (void)state;
    static const struct {
        const char *creds, *authz, *uri;
        bool incoming;
        const char *words; /* NULL: fine */
    } cases[] = {
        { "", "", "tcp:there.test:1", false, NULL },
        { "c", "", "tcp:there.test:1", false, NULL },
        { "c", "", "tcp:there.test:1", true, "needs endpoint=server" },
        { "s", "", "tcp:there.test:1", false, "needs endpoint=client" },
        { "no", "", "tcp:there.test:1", false, "there are no credentials 'no'" },
        { "a", "", "tcp:there.test:1", true, "there are no credentials 'a'" },
        { "c", "", "file:/dev/null", false, "nobody to shake hands with" },
        { "s", "a", "tcp:there.test:1", true, NULL },
        { "s", "c", "tcp:there.test:1", true, "there is no list 'c'" },
    };
    struct tls_store *store;
    char text[256];
    assert_int_equal(tls_store_new(&store, NULL), 0);
    snprintf(text, sizeof(text), "tls-creds-psk,id=c,dir=%s,endpoint=client", files.dir);
    assert_int_equal(tls_store_add_text(store, text, NULL), 0);
    snprintf(text, sizeof(text), "tls-creds-psk,id=s,dir=%s,endpoint=server", files.dir);
    assert_int_equal(tls_store_add_text(store, text, NULL), 0);
    assert_int_equal(tls_store_add_text(store, "authz-simple,id=a,identity=qemu", NULL), 0);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct lines lines = { .creds = NULL };
        struct migration_params params;
        struct err err = { 0 };
        params_init(&params);
        strcpy(params.tls_creds, cases[i].creds);
        strcpy(params.tls_authz, cases[i].authz);
        int rc = lines_begin(&lines, store, &params, cases[i].uri, cases[i].incoming, &err);
        assert_int_equal(rc, cases[i].words ? -EINVAL : 0);
        if (cases[i].words && !strstr(err.text, cases[i].words))
            fail_msg("'%s' says nothing of %s", err.text, cases[i].words);
        if (rc == 0 && lines.creds)
            assert_string_equal(lines.hostname, "there.test");
        lines_end(&lines);
    }
    tls_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_between_the_same_two_ends_is_believed),
        cmocka_unit_test(nobody_splices_a_line_in),
        cmocka_unit_test(plain_lines_are_as_they_were),
        cmocka_unit_test(parameters_name_objects_of_the_right_side),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
