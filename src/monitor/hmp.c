/* HMP: command lines for people, and for scripts that wait for "(qemu) ". */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/monitor_priv.h"
#include "monitor/plan.h"

#define PROMPT "(qemu) "

enum { WAIT_MS_MIN = 50, WAIT_MS_MAX = 5000, KEY_CTRL_C = 3, KEY_CTRL_U = 21, KEY_ESCAPE = 27, KEY_DELETE = 127 };

/* --- one line ------------------------------------------------------------------------------------------- */

static const char *skip_space(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* The next word, "quoted with \" and \\" if it has blanks. False when there is none. */
static bool next_word(const char **at, char *out, size_t size)
{
    const char *in = skip_space(*at);
    size_t used = 0;
    bool quoted = *in == '"';
    if (*in == '\0')
        return false;
    for (in += quoted; *in && (quoted ? *in != '"' : !isspace((unsigned char)*in)); in++) {
        if (quoted && *in == '\\' && in[1])
            in++;
        if (used + 1 < size)
            out[used++] = *in;
    }
    out[used] = '\0';
    *at = in + (quoted && *in == '"');
    return true;
}

/* A flag that is a word of its own. */
static bool take_long_flag(const struct command *command, const char **at, struct json_object *args)
{
    size_t length = strcspn(*at + 1, " \t\r\n");
    for (const struct command_arg *arg = command->args; arg->type != ARG_END; arg++)
        if (arg->word && strlen(arg->word) == length && !strncmp(*at + 1, arg->word, length)) {
            json_put_bool(args, arg->name, true);
            *at += 1 + length;
            return true;
        }
    return false;
}

static int take_flags(const struct command *command, const char **at, struct json_object *args, struct err *err)
{
    bool any = false;
    for (const struct command_arg *arg = command->args; arg->type != ARG_END; arg++)
        any |= arg->type == ARG_FLAG;
    while (any && *(*at = skip_space(*at)) == '-' && isalpha((unsigned char)(*at)[1])) {
        if (take_long_flag(command, at, args))
            continue;
        for ((*at)++; **at && !isspace((unsigned char)**at); (*at)++) {
            const struct command_arg *arg = command->args;
            while (arg->type != ARG_END && (arg->type != ARG_FLAG || arg->word || arg->flag != **at))
                arg++;
            if (arg->type == ARG_END)
                return err_set(err, -EINVAL, "%s: unsupported option -%c", command->hmp, **at);
            json_put_bool(args, arg->name, true);
        }
    }
    return 0;
}

/* "32" is MiB, "32k", "1.5G" are what they say. */
static struct json_object *size_value(const char *word)
{
    char mebi[64];
    uint64_t bytes;
    if (strspn(word, "0123456789.") == strlen(word) && strlen(word) < 32) {
        snprintf(mebi, sizeof mebi, "%.40sM", word);
        word = mebi;
    }
    return parse_size(word, &bytes) == 0 && bytes <= INT64_MAX ? json_object_new_int64((int64_t)bytes) : NULL;
}

static struct json_object *word_value(const struct command_arg *arg, const char *word)
{
    char *end = NULL;
    switch (arg->type) {
    case ARG_INT: {
        long long number = strtoll(word, &end, 0);
        return *word && !*end ? json_object_new_int64(number) : NULL;
    }
    case ARG_NUMBER: {
        double number = strtod(word, &end);
        return *word && !*end ? json_object_new_double(number) : NULL;
    }
    case ARG_BOOL:
        if (!strcmp(word, "on") || !strcmp(word, "off"))
            return json_object_new_boolean(!strcmp(word, "on"));
        return NULL;
    case ARG_SIZE: return size_value(word);
    default: return json_object_new_string(word);
    }
}

static const char *wanted(enum arg_type type)
{
    switch (type) {
    case ARG_INT: return "integer";
    case ARG_NUMBER: return "number";
    case ARG_BOOL: return "'on' or 'off'";
    case ARG_SIZE: return "size";
    default: return "string";
    }
}

static int take_args(const struct command *command, const char *at, struct json_object *args, struct err *err)
{
    char word[SESSION_LINE_MAX];
    int rc = take_flags(command, &at, args, err);
    for (const struct command_arg *arg = command->args; rc == 0 && arg->type != ARG_END; arg++) {
        if (arg->qmp_only || arg->type == ARG_FLAG)
            continue;
        bool there = *skip_space(at) != '\0';
        if (there && arg->type == ARG_TEXT) {
            at = skip_space(at);
            snprintf(word, sizeof word, "%s", at);
            at += strlen(at);
        } else if (there) {
            there = next_word(&at, word, sizeof word);
        }
        /* migrate's address may come as channels in QMP; a person has only this way to say it */
        if (!there && arg->optional && strcmp(arg->name, "uri"))
            continue;
        struct json_object *value = there ? word_value(arg, word) : NULL;
        if (!value)
            return err_set(err, -EINVAL, "%s: %s expected", command->hmp, wanted(arg->type));
        json_put(args, arg->name, value);
    }
    if (rc == 0 && *skip_space(at))
        return err_set(err, -EINVAL, "%s: extraneous characters at the end of line", command->hmp);
    return rc;
}

static void run_command(struct call *call, const struct command *command)
{
    if (command->run(call) < 0)
        fprintf(call->out, "Error: %s\n", call->err.text);
    else if (command->print)
        command->print(call);
    json_object_put(call->result);
}

static void list_topics(FILE *out)
{
    for (unsigned i = 0; i < command_rows; i++)
        if (command_table[i].hmp && !strncmp(command_table[i].hmp, "info ", 5))
            fprintf(out, "%s -- %s\n", command_table[i].hmp, command_table[i].help);
}

void hmp_run_line(struct monitor *monitor, struct session *session, const char *line, FILE *out)
{
    struct call call = { .monitor = monitor, .session = session, .out = out };
    const char *rest;
    const struct command *command = command_find_hmp(line, &rest);
    line = skip_space(line);
    size_t length = strlen(line);
    while (length > 0 && isspace((unsigned char)line[length - 1]))
        length--;
    if (length == 0)
        return;
    if (!command && length == 4 && !strncmp(line, "info", 4)) {
        list_topics(out);
        return;
    }
    if (!command) {
        bool topic = !strncmp(line, "info ", 5);
        size_t word = topic ? 5 : 0;
        word += strcspn(line + word, " \t\r\n");
        fprintf(out, "unknown command: '%.*s'\n", (int)word, line);
        return;
    }
    call.args = json_object_new_object();
    if (take_args(command, rest, call.args, &call.err) < 0)
        fprintf(out, "%s\nTry \"help %s\" for more information\n", call.err.text, command->hmp);
    else
        run_command(&call, command);
    json_object_put(call.args);
}

/* --- help ----------------------------------------------------------------------------------------------- */

static void print_usage(const struct command *command, FILE *out)
{
    fprintf(out, "%s", command->hmp);
    if (command->alias)
        fprintf(out, "|%s", command->alias);
    for (const struct command_arg *arg = command->args; arg->type != ARG_END; arg++) {
        if (arg->qmp_only)
            continue;
        if (arg->type == ARG_FLAG && arg->word)
            fprintf(out, " [-%s]", arg->word);
        else if (arg->type == ARG_FLAG)
            fprintf(out, " [-%c]", arg->flag);
        else
            fprintf(out, arg->optional && strcmp(arg->name, "uri") ? " [%s]" : " %s", arg->name);
    }
    fprintf(out, " -- %s\n", command->help);
}

int cmd_help(struct call *call)
{
    const char *name = json_get_str(call->args, "name"), *rest;
    if (!name) {
        for (unsigned i = 0; i < command_rows; i++)
            if (command_table[i].hmp)
                print_usage(&command_table[i], call->out);
        return 0;
    }
    if (!strcmp(name, "info")) {
        list_topics(call->out);
        return 0;
    }
    const struct command *command = command_find_hmp(name, &rest);
    if (!command)
        return err_set(&call->err, -ENOENT, "There is no command '%s'", name);
    print_usage(command, call->out);
    return 0;
}

/* --- a session ------------------------------------------------------------------------------------------ */

static void say(struct session *session, const char *text)
{
    session_text(session, text, strlen(text));
}

void hmp_opened(struct session *session)
{
    char banner[160];
    session->length = 0;
    session->escape = 0;
    session->history_at = -1;
    snprintf(banner, sizeof banner, "QEMU %d.%d.%d monitor (godwit %s) - type 'help' for more information\n" PROMPT,
             MONITOR_QEMU_MAJOR, MONITOR_QEMU_MINOR, MONITOR_QEMU_MICRO,
             session->monitor->context.version ? session->monitor->context.version : "");
    say(session, banner);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void stop_waiting(struct session *session)
{
    session->waiting = false;
    if (session->wait_timer)
        uv_close((uv_handle_t *)session->wait_timer, free_handle);
    session->wait_timer = NULL;
}

/* Whoever started a migration and left has only left: it goes on. */
void hmp_closed(struct session *session)
{
    stop_waiting(session);
    session->held_bytes = 0;
}

static void run_line(struct session *session, const char *line)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return;
    hmp_run_line(session->monitor, session, line, out);
    fclose(out);
    monitor_deliver_notes(session->monitor);
    session_text(session, text, bytes);
    free(text);
    if (!session->waiting && !session->monitor->quitting)
        say(session, PROMPT);
}

/* --- the line editor ------------------------------------------------------------------------------------ */

static void remember(struct session *session)
{
    if (session->length == 0 || (session->history[0] && !strcmp(session->history[0], session->line)))
        return;
    free(session->history[SESSION_HISTORY - 1]);
    memmove(session->history + 1, session->history, sizeof *session->history * (SESSION_HISTORY - 1));
    session->history[0] = strdup(session->line);
}

static void erase_line(struct session *session)
{
    for (; session->length > 0; session->length--)
        session_write(session, "\b \b", 3);
}

static void recall(struct session *session, int step)
{
    int at = session->history_at + step;
    if (at < -1 || at >= SESSION_HISTORY || (at >= 0 && !session->history[at]))
        return;
    erase_line(session);
    session->history_at = at;
    if (at < 0)
        return;
    session->length = strlen(session->history[at]);
    memcpy(session->line, session->history[at], session->length);
    session_write(session, session->line, session->length);
}

static void end_line(struct session *session)
{
    session->line[session->length] = '\0';
    session->history_at = -1;
    say(session, "\n");
    remember(session);
    session->length = 0;
    run_line(session, session->line);
}

/* ESC [ X: cursor up and down walk through history, all others do nothing. */
static bool in_escape(struct session *session, char key)
{
    if (session->escape == 0) {
        session->escape = key == KEY_ESCAPE;
        return key == KEY_ESCAPE;
    }
    if (session->escape == 1 && (key == '[' || key == 'O')) {
        session->escape = 2;
        return true;
    }
    if (session->escape == 2 && (isdigit((unsigned char)key) || key == ';'))
        return true;
    if (session->escape == 2 && (key == 'A' || key == 'B'))
        recall(session, key == 'A' ? 1 : -1);
    session->escape = 0;
    return true;
}

static void take_key(struct session *session, char key)
{
    bool second_half = key == '\n' && session->after_return;
    session->after_return = key == '\r';
    if (second_half || in_escape(session, key))
        return;
    if (key == '\r' || key == '\n') {
        end_line(session);
    } else if (key == '\b' || key == KEY_DELETE) {
        if (session->length > 0) {
            session->length--;
            session_write(session, "\b \b", 3);
        }
    } else if (key == KEY_CTRL_U) {
        erase_line(session);
    } else if (key == KEY_CTRL_C) {
        session->length = 0;
        say(session, "\n" PROMPT);
    } else if ((unsigned char)key >= ' ' && session->length + 1 < sizeof session->line) {
        session->line[session->length++] = key;
        session_write(session, &key, 1);
    }
}

size_t hmp_room(const struct session *session)
{
    return sizeof session->held - session->held_bytes;
}

void hmp_receive(struct session *session, const char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes && !session->monitor->quitting; i++) {
        if (!session->waiting) {
            take_key(session, data[i]);
        } else if (data[i] == KEY_CTRL_C) {
            migration_cancel(session->monitor->context.migration);
        } else if (session->held_bytes < sizeof session->held) {
            session->held[session->held_bytes++] = data[i];
        }
    }
}

/* --- a migration in the foreground ---------------------------------------------------------------------- */

static bool is_over(enum migration_state state)
{
    return state != MIGRATION_SETUP && state != MIGRATION_ACTIVE && state != MIGRATION_DEVICE &&
           state != MIGRATION_CANCELLING;
}

static void show_progress(struct session *session, const struct migration_info *info)
{
    char text[400], eta[ETA_TEXT_MAX];
    struct migration_report *report = malloc(sizeof *report);
    if (!report)
        return;
    migration_report(session->monitor->context.migration, report);
    eta_text(&report->eta, eta);
    free(report);
    uint64_t total = info->ram_total, left = info->ram_remaining;
    for (unsigned i = 0; i < info->disks; i++) { /* of what they hold, not of their holes */
        left += info->disk[i].remaining;
        total += info->disk[i].remaining + info->disk[i].copied;
    }
    double done = total ? 100.0 * (double)(total - left) / (double)total : 0;
    snprintf(text, sizeof text,
             "\rMigration: %-10s [ %3.0f %% ] round %" PRIu64
             ", %.1f MB/s, dirty %.1f MB/s, downtime %.0f ms, ETA %s\033[K",
             migration_state_name(info->state), done < 0 ? 0 : done, info->rounds, info->mbps / 8,
             (double)info->dirty_pages_per_s * 4096 / 1e6, info->expected_downtime_ms, eta);
    session_write(session, text, strlen(text));
}

static void show_plan(struct session *session)
{
    struct plan_result plan;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return;
    migration_plan_of(session->monitor->context.migration, &plan);
    struct json_object *object = plan_json(&plan);
    fprintf(out, "\n");
    plan_print(object, out);
    fclose(out);
    say(session, text);
    json_object_put(object);
    free(text);
}

static void show_end(struct session *session, const struct migration_info *info)
{
    char text[ERR_TEXT_MAX + 200];
    if (info->state == MIGRATION_COMPLETED && info->purpose == PURPOSE_PLAN) {
        show_plan(session);
        return;
    }
    if (info->state == MIGRATION_COMPLETED && info->purpose == PURPOSE_REHEARSAL)
        snprintf(text, sizeof text,
                 "\nRehearsal completed in %" PRId64
                 " ms: a migration would have had a downtime of %.1f ms (predicted %.1f ms); "
                 "the guest runs on here and stood still for %.1f ms\n",
                 info->total_ms, info->downtime_ms, info->predicted_downtime_ms, info->held_ms);
    else if (info->state == MIGRATION_COMPLETED)
        snprintf(text, sizeof text, "\nMigration completed in %" PRId64 " ms, downtime %.1f ms (predicted %.1f ms)\n",
                 info->total_ms, info->downtime_ms, info->predicted_downtime_ms);
    else if (info->error.code)
        snprintf(text, sizeof text, "\nMigration %s: %s\n", migration_state_name(info->state), info->error.text);
    else
        snprintf(text, sizeof text, "\nMigration %s\n", migration_state_name(info->state));
    say(session, text);
}

static void take_held(struct session *session)
{
    char held[sizeof session->held];
    size_t bytes = session->held_bytes;
    memcpy(held, session->held, bytes);
    session->held_bytes = 0;
    hmp_receive(session, held, bytes);
    chardev_accept_input(session->chardev);
    monitor_finish_quit(session->monitor);
}

static void on_wait_timer(uv_timer_t *timer)
{
    struct session *session = timer->data;
    struct migration_info info;
    migration_query(session->monitor->context.migration, &info);
    if (!is_over(info.state)) {
        show_progress(session, &info);
        return;
    }
    stop_waiting(session);
    monitor_deliver_notes(session->monitor);
    show_end(session, &info);
    say(session, PROMPT);
    take_held(session);
}

void hmp_wait_for_migration(struct session *session)
{
    const struct migration_params *params = migration_params_of(session->monitor->context.migration);
    uint64_t interval = atomic_load_explicit(&params->announce_ms, memory_order_relaxed);
    uv_timer_t *timer = malloc(sizeof *timer);
    if (!timer)
        return; /* it runs in the background then */
    if (interval < WAIT_MS_MIN || interval > WAIT_MS_MAX)
        interval = interval < WAIT_MS_MIN ? WAIT_MS_MIN : WAIT_MS_MAX;
    uv_timer_init(session->monitor->context.loop, timer);
    timer->data = session;
    uv_timer_start(timer, on_wait_timer, interval, interval);
    session->wait_timer = timer;
    session->waiting = true;
}
