/* A program at a QMP monitor that says what somebody made up. Each input is a row of pieces: u8 kind, u8 length, bytes:
 * text as it is; a command of the table whose arguments, with the names and types that it wants or with others, are made from
 * the bytes; another state of guest and migration; a reader that stalls or leaves. Whatever is said: answers are lines of
 * ASCII, each one JSON. */
#include "tests/fuzz/monitor.h"

static struct json_object *value_of(struct input *in, unsigned type)
{
    char text[64];
    size_t bytes;
    const uint8_t *data;
    switch (type) {
    case ARG_INT:
    case ARG_SIZE: return json_object_new_int64((int64_t)take(in, 8));
    case ARG_NUMBER: return json_object_new_double((double)(int64_t)take(in, 8) / 256);
    case ARG_BOOL:
    case ARG_FLAG: return json_object_new_boolean(take(in, 1) & 1);
    case ARG_ARRAY: {
        struct json_object *array = json_object_new_array();
        for (uint64_t n = take(in, 1) % 4; n; n--) {
            struct json_object *member = json_object_new_object();
            json_put(member, take(in, 1) & 1 ? "capability" : "addr", value_of(in, (unsigned)take(in, 1) % ARG_ARRAY));
            json_put(member, "state", value_of(in, ARG_BOOL));
            json_object_array_add(array, member);
        }
        return array;
    }
    default:
        data = take_bytes(in, take(in, 1) % sizeof(text), &bytes);
        return json_object_new_string_len((const char *)data, (int)bytes);
    }
}

static void say_command(struct input *in)
{
    const struct command *command = &command_table[take(in, 1) % command_rows];
    struct json_object *request = json_object_new_object(), *args = json_object_new_object();
    if (!command->qmp)
        command = &command_table[1];
    for (const struct command_arg *arg = command->args; arg->type != ARG_END; arg++) {
        unsigned how = (unsigned)take(in, 1);
        if (arg->optional && how & 1)
            continue;
        json_put(args, arg->name, value_of(in, how & 0xe0 ? arg->type : how >> 1 & 15));
    }
    if (command->open_args) /* parameters by name */
        for (uint64_t n = take(in, 1) % 4; n; n--) {
            const struct param_row *row = &param_table[take(in, 1) % param_rows];
            json_put(args, row->name, value_of(in, (unsigned)take(in, 1) % ARG_ARRAY));
        }
    json_put_str(request, "execute", command->qmp);
    json_put(request, "arguments", args);
    if (take(in, 1) & 1)
        json_put(request, "id", value_of(in, (unsigned)take(in, 1) % (ARG_ARRAY + 1)));
    char *text = json_string(request);
    session_hear(text, strlen(text));
    free(text);
    json_object_put(request);
}

static void check_answers(void)
{
    struct buf *said = &chardev->said;
    size_t done = 0;
    for (size_t i = 0; i < said->size; i++)
        FUZZ_CHECK(said->data[i] < 0x80);
    for (size_t i = 1; i < said->size; i++) {
        if (said->data[i - 1] != '\r' || said->data[i] != '\n')
            continue;
        said->data[i - 1] = '\0';
        struct json_object *line = json_tokener_parse((const char *)said->data + done);
        FUZZ_CHECK(json_object_is_type(line, json_type_object));
        json_object_put(line);
        done = i + 1;
    }
    FUZZ_CHECK(done == said->size || chardev->full);
    said->size = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char hello[] = "{\"execute\":\"qmp_capabilities\"}";
    struct input in = { data, size };
    session_begin(MONITOR_QMP);
    if (take(&in, 1) % 8)
        session_hear(hello, sizeof(hello) - 1);
    for (unsigned n = 0; in.size && n < PIECES_MAX; n++) {
        enum piece_kind kind = (enum piece_kind)(take(&in, 1) % 4);
        size_t bytes;
        const uint8_t *at = take_bytes(&in, take(&in, 1), &bytes);
        struct input piece = { at, bytes };
        switch (kind) {
        case PIECE_RAW: session_hear(at, bytes); break;
        case PIECE_COMMAND: say_command(&piece); break;
        case PIECE_STATE: session_state(&piece); break;
        case PIECE_STALL: session_stall(&piece); break;
        }
        uv_run(&loop, UV_RUN_NOWAIT);
        if (!chardev->full)
            check_answers();
    }
    session_end();
    return 0;
}
