/* A monitor's session over a chardev that is a buffer, in front of the unit tests' machine and migration, which only take
 * notes: no command that the fuzzer finds opens, runs or ends anything. For fuzz_qmp and fuzz_hmp. */
#pragma once
#include "tests/unit/monitor/fakes.h"

#include "monitor/monitor_priv.h"
#include "tests/fuzz/fuzz.h"

/* --- the chardev --------------------------------------------------------------------------------------------------- */

struct chardev {
    const struct chardev_client *client;
    void *opaque;
    struct buf said; /* by the monitor */
    bool full;       /* takes nothing now */
};

int chardev_open(const char *id, const char *spec, uv_loop_t *on, struct chardev **out, struct err *err)
{
    (void)id, (void)spec, (void)on, (void)out;
    return err_set(err, -ENOSYS, "nothing is opened here");
}

void chardev_attach(struct chardev *to, const struct chardev_client *client, void *opaque)
{
    to->client = client;
    to->opaque = opaque;
    if (client && client->opened)
        client->opened(opaque, true);
}

size_t chardev_write(struct chardev *to, const void *data, size_t bytes)
{
    if (to->full)
        return 0;
    buf_put(&to->said, data, bytes);
    return bytes;
}

void chardev_accept_input(struct chardev *of)
{
    (void)of;
}

bool chardev_is_open(struct chardev *of)
{
    (void)of;
    return true;
}

const char *chardev_describe(const struct chardev *of)
{
    (void)of;
    return "buffer";
}

const char *chardev_id(const struct chardev *of)
{
    (void)of;
    return "mon0";
}

void chardev_free(struct chardev *of)
{
    (void)of;
}

void chardev_walk(void (*visit)(void *opaque, struct chardev *one), void *opaque)
{
    if (chardev)
        visit(opaque, chardev);
}

/* --- the session --------------------------------------------------------------------------------------------------- */

enum { PIECES_MAX = 64 };
enum piece_kind { PIECE_RAW, PIECE_COMMAND, PIECE_STATE, PIECE_STALL };

static inline void session_begin(enum monitor_mode mode)
{
    static struct chardev line;
    set_up_fakes();
    line = (struct chardev){ 0 };
    chardev = &line;
    struct monitor_context context = { .loop = &loop,
                                       .machine = &machine,
                                       .migration = &migration,
                                       .quit = count_quit,
                                       .settle = on_settle,
                                       .run_on_arrival = true,
                                       .version = "0.1" };
    FUZZ_CHECK(uv_loop_init(&loop) == 0);
    FUZZ_CHECK(monitor_new(&context, &monitor, NULL) == 0 && monitor_add(monitor, chardev, mode, NULL) == 0);
}

static inline void session_end(void)
{
    monitor_free(monitor);
    monitor = NULL;
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    FUZZ_CHECK(uv_loop_close(&loop) == 0); /* no handle is left */
    buf_free(&chardev->said);
}

/* As a chardev does: never more than it has said that it takes. */
static inline void session_hear(const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        size_t room = chardev->client->can_receive(chardev->opaque), now = bytes < room ? bytes : room;
        if (now == 0)
            return;
        chardev->client->receive(chardev->opaque, at, now);
        at += now;
        bytes -= now;
    }
}

/* What the world does meanwhile. */
static inline void session_state(struct input *in)
{
    machine.state = (enum run_state)(take(in, 1) % (RUN_INTERNAL_ERROR + 1));
    migration.info.state = (enum migration_state)(take(in, 1) % (MIGRATION_UNRESOLVED + 1));
    migration.info.purpose = (enum migration_purpose)(take(in, 1) % 3);
    migration.start_answer = take(in, 1) % 4 ? 0 : -EBUSY;
    migration.cancel_answer = take(in, 1) % 4 ? 0 : -EBUSY;
    migration.info.ram_total = take(in, 4);
    migration.info.rounds = take(in, 8);
}

static inline void session_stall(struct input *in)
{
    chardev->full = take(in, 1) & 1;
    if (!chardev->full)
        chardev->client->writable(chardev->opaque);
    if (take(in, 1) % 8 == 0) { /* somebody else comes */
        chardev->client->opened(chardev->opaque, false);
        chardev->client->opened(chardev->opaque, true);
    }
}
