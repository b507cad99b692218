#include <errno.h>
#include <stdio.h>

#include "monitor/gdb_session_priv.h"
#include "monitor/gdb_xml.h"

/* --- answers ---------------------------------------------------------------------------------------------- */

void gdb_reply_text(struct gdb_session *s, const char *text)
{
    gdb_put_text(&s->reply, text);
}

static void reply_ok(struct gdb_session *s)
{
    gdb_reply_text(s, "OK");
}

/* Two digits, which debuggers show as they are: a positive errno. */
void gdb_reply_error(struct gdb_session *s, int code)
{
    char text[8];
    unsigned number = (unsigned)-code % 100;
    s->reply.size = 0;
    snprintf(text, sizeof(text), "E%02u", number);
    gdb_reply_text(s, text);
}

void gdb_reply_result(struct gdb_session *s, int result)
{
    result < 0 ? gdb_reply_error(s, result) : reply_ok(s);
}

void gdb_reply_sentence(struct gdb_session *s, const char *text)
{
    s->reply.size = 0;
    gdb_reply_text(s, "E.");
    gdb_reply_text(s, text);
}

static void flush(struct gdb_session *s)
{
    if (s->out.size > 0)
        s->target->send(s->opaque, s->out.data, s->out.size);
    s->out.size = 0;
}

/* The reply becomes a packet, which is kept in case that it is damaged on its way. */
static void send_reply(struct gdb_session *s)
{
    s->last.size = 0;
    gdb_packet_put(&s->last, s->reply.data, s->reply.size);
    buf_put(&s->out, s->last.data, s->last.size);
    s->reply.size = 0;
}

/* Text for the person, in packets of its own before the answer. */
static void send_console(struct gdb_session *s, const void *text, size_t bytes)
{
    const uint8_t *at = text;
    while (bytes > 0) {
        size_t piece = bytes < GDB_DATA_MAX ? bytes : GDB_DATA_MAX;
        s->reply.size = 0;
        gdb_reply_text(s, "O");
        gdb_put_hex(&s->reply, at, piece);
        send_reply(s);
        at += piece;
        bytes -= piece;
    }
}

void gdb_reply_stop(struct gdb_session *s, int signal)
{
    char text[GDB_TEXT_MAX];
    snprintf(text, sizeof(text), "T%02xthread:%x;", (unsigned)signal, s->hart + 1);
    gdb_reply_text(s, text);
}

void gdb_session_stopped(struct gdb_session *s, unsigned hart, int signal, const char *note)
{
    if (!s->waiting)
        return;
    s->waiting = false;
    s->hart = s->step_hart = hart;
    if (note) {
        char line[ERR_TEXT_MAX];
        snprintf(line, sizeof(line), "%s\n", note);
        send_console(s, line, strlen(line));
    }
    gdb_reply_stop(s, signal);
    send_reply(s);
    flush(s);
}

void gdb_session_exited(struct gdb_session *s, int code)
{
    char text[GDB_TEXT_MAX];
    if (!s->waiting)
        return;
    s->waiting = false;
    snprintf(text, sizeof(text), "W%02x", (unsigned)code & 0xff);
    gdb_reply_text(s, text);
    send_reply(s);
    flush(s);
}

/* --- threads ---------------------------------------------------------------------------------------------- */

/* *thread: GDB_ANY_THREAD, GDB_ALL_THREADS, or a hart's number + 1. */
bool gdb_take_thread(struct gdb_session *s, const char **at, int *thread)
{
    uint64_t value;
    if (gdb_skip(at, '-')) {
        *thread = GDB_ALL_THREADS;
        return gdb_skip(at, '1');
    }
    if (!gdb_number(at, &value) || value > s->target->harts(s->opaque))
        return false;
    *thread = (int)value;
    return true;
}

static void cmd_select(struct gdb_session *s, const char *at)
{
    char use = *at;
    int thread;
    if (use != '\0')
        at++;
    if ((use != 'g' && use != 'c') || !gdb_take_thread(s, &at, &thread) || *at) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    if (use == 'c')
        s->step_all = thread <= 0;
    if (thread > 0)
        *(use == 'g' ? &s->hart : &s->step_hart) = (unsigned)thread - 1;
    reply_ok(s);
}

static void cmd_alive(struct gdb_session *s, const char *at)
{
    int thread;
    bool there = gdb_take_thread(s, &at, &thread) && thread > 0 && !*at;
    gdb_reply_result(s, there ? 0 : -EINVAL);
}

static void query_threads(struct gdb_session *s, const char *at)
{
    unsigned harts = s->target->harts(s->opaque);
    (void)at;
    for (unsigned i = 0; i < harts; i++) {
        char text[GDB_TEXT_MAX];
        snprintf(text, sizeof(text), "%c%x", i ? ',' : 'm', i + 1);
        gdb_reply_text(s, text);
    }
}

static void query_threads_end(struct gdb_session *s, const char *at)
{
    (void)at;
    gdb_reply_text(s, "l");
}

static void query_thread_text(struct gdb_session *s, const char *at)
{
    char text[GDB_TEXT_MAX];
    int thread;
    if (!gdb_take_thread(s, &at, &thread) || thread <= 0 || *at) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    unsigned hart = (unsigned)thread - 1;
    snprintf(text, sizeof(text), "hart %u [%s]", hart, s->target->hart_state(s->opaque, hart));
    gdb_put_hex(&s->reply, text, strlen(text));
}

static void query_current(struct gdb_session *s, const char *at)
{
    char text[GDB_TEXT_MAX];
    (void)at;
    snprintf(text, sizeof(text), "QC%x", s->hart + 1);
    gdb_reply_text(s, text);
}

/* --- stopping and leaving ---------------------------------------------------------------------------------- */

static void cmd_why(struct gdb_session *s, const char *at)
{
    (void)at;
    gdb_reply_stop(s, GDB_SIGNAL_TRAP);
}

static void cmd_detach(struct gdb_session *s, const char *at)
{
    (void)at;
    s->done = true;
    reply_ok(s);
    s->target->detach(s->opaque);
}

static void cmd_kill(struct gdb_session *s, const char *at)
{
    (void)at;
    s->done = true;
    s->target->kill(s->opaque);
}

static void cmd_kill_process(struct gdb_session *s, const char *at)
{
    cmd_kill(s, at);
    reply_ok(s);
}

/* --- questions -------------------------------------------------------------------------------------------- */

static void query_supported(struct gdb_session *s, const char *at)
{
    char text[GDB_TEXT_MAX];
    (void)at;
    snprintf(text, sizeof(text), "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+",
             (unsigned)GDB_PACKET_MAX);
    gdb_reply_text(s, text);
}

/* qXfer:features:read:target.xml:OFFSET,LENGTH */
static void query_features(struct gdb_session *s, const char *at)
{
    static const char annex[] = "target.xml:";
    uint64_t first, length;
    if (strncmp(at, annex, strlen(annex)) != 0) {
        gdb_reply_text(s, "E00"); /* what the protocol has for a document that is not there */
        return;
    }
    at += strlen(annex);
    if (!gdb_range(&at, &first, &length) || *at || first > s->xml.size) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    size_t left = s->xml.size - first, piece = length < left ? length : left;
    piece = gdb_packet_fits(s->xml.data + first, piece, 1);
    gdb_reply_text(s, piece < left ? "m" : "l");
    buf_put(&s->reply, s->xml.data + first, piece);
}

static void query_attached(struct gdb_session *s, const char *at)
{
    (void)at;
    gdb_reply_text(s, "1"); /* the guest was there before: leaving means detach, not kill */
}

static void set_no_acks(struct gdb_session *s, const char *at)
{
    (void)at;
    s->in.no_acks = true;
    reply_ok(s);
}

/* A command line of the monitor, in hexadecimal digits. */
static void query_monitor(struct gdb_session *s, const char *at)
{
    char line[GDB_PACKET_MAX / 2 + 1];
    struct buf said = { 0 };
    size_t bytes = strlen(at) / 2;
    if (strlen(at) % 2 || !gdb_get_hex(at, line, bytes)) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    line[bytes] = '\0';
    s->target->command(s->opaque, line, &said);
    send_console(s, said.data, said.size);
    buf_free(&said);
    s->reply.size = 0;
    reply_ok(s);
}

/* Whether addresses are physical; the packets have the names that QEMU gave them. */
static void query_physical(struct gdb_session *s, const char *at)
{
    (void)at;
    gdb_reply_text(s, s->physical ? "1" : "0");
}

static void set_physical(struct gdb_session *s, const char *at)
{
    if ((at[0] != '0' && at[0] != '1') || at[1]) {
        gdb_reply_error(s, -EINVAL);
        return;
    }
    s->physical = at[0] == '1';
    reply_ok(s);
}

/* --- the table -------------------------------------------------------------------------------------------- */

static const struct gdb_command {
    const char *name;
    void (*run)(struct gdb_session *s, const char *rest);
    enum { AS_IS, WHOLE, KEEP } how; /* WHOLE: nothing may follow the name; KEEP: run() sees the name, too */
} commands[] = {
    { "?", cmd_why, WHOLE },
    { "g", gdb_read_all, WHOLE },
    { "G", gdb_write_all, AS_IS },
    { "p", gdb_read_one, AS_IS },
    { "P", gdb_write_one, AS_IS },
    { "m", gdb_read_memory, AS_IS },
    { "M", gdb_write_memory, AS_IS },
    { "X", gdb_write_binary, AS_IS },
    { "Z", gdb_set_point, AS_IS },
    { "z", gdb_clear_point, AS_IS },
    { "H", cmd_select, AS_IS },
    { "T", cmd_alive, AS_IS },
    { "c", gdb_resume_old, KEEP },
    { "C", gdb_resume_old, KEEP },
    { "s", gdb_resume_old, KEEP },
    { "S", gdb_resume_old, KEEP },
    { "D", cmd_detach, AS_IS },
    { "k", cmd_kill, WHOLE },
    { "vKill;", cmd_kill_process, AS_IS },
    { "vCont?", gdb_resume_actions, WHOLE },
    { "vCont", gdb_resume_some, AS_IS },
    { "qSupported", query_supported, AS_IS },
    { "qXfer:features:read:", query_features, AS_IS },
    { "qfThreadInfo", query_threads, WHOLE },
    { "qsThreadInfo", query_threads_end, WHOLE },
    { "qThreadExtraInfo,", query_thread_text, AS_IS },
    { "qC", query_current, WHOLE },
    { "qAttached", query_attached, AS_IS },
    { "qRcmd,", query_monitor, AS_IS },
    { "qqemu.PhyMemMode", query_physical, WHOLE },
    { "Qqemu.PhyMemMode:", set_physical, AS_IS },
    { "QStartNoAckMode", set_no_acks, WHOLE },
};

/* What is not in the table gets the empty answer, which means just that. */
static void run_packet(struct gdb_session *s)
{
    const char *data = s->in.data;
    s->target->stop(s->opaque); /* whoever let it run: what a debugger asks is about a guest that stands still */
    s->waiting = false;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const struct gdb_command *command = &commands[i];
        size_t length = strlen(command->name);
        if (strncmp(data, command->name, length) != 0 || (command->how == WHOLE && data[length]))
            continue;
        command->run(s, command->how == KEEP ? data : data + length);
        break;
    }
    bool silent = s->waiting || (s->done && s->reply.size == 0); /* resumed, or killed: no answer */
    if (!silent)
        send_reply(s);
}

/* --- bytes ------------------------------------------------------------------------------------------------ */

static void acknowledge(struct gdb_session *s, char sign, bool no_acks)
{
    if (!no_acks)
        buf_put_u8(&s->out, (uint8_t)sign);
}

static void take(struct gdb_session *s, uint8_t byte)
{
    bool no_acks = s->in.no_acks; /* a packet that changes it is still acknowledged */
    switch (gdb_parser_take(&s->in, byte)) {
    case GDB_NONE: break;
    case GDB_PACKET:
        acknowledge(s, '+', no_acks);
        run_packet(s);
        break;
    case GDB_TOO_LONG:
        acknowledge(s, '+', no_acks); /* again it would be as long */
        gdb_reply_error(s, -EMSGSIZE);
        send_reply(s);
        break;
    case GDB_BAD_SUM: acknowledge(s, '-', no_acks); break;
    case GDB_INTERRUPT: s->target->stop(s->opaque); break;
    case GDB_ACK: s->last.size = 0; break;
    case GDB_NAK: buf_put(&s->out, s->last.data, s->last.size); break;
    }
}

void gdb_session_receive(struct gdb_session *s, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes && !s->done; i++)
        take(s, data[i]);
    flush(s);
}

/* --- life ------------------------------------------------------------------------------------------------- */

void gdb_session_open(struct gdb_session *s, const struct gdb_target *target, void *opaque)
{
    gdb_parser_init(&s->in);
    s->target = target;
    s->opaque = opaque;
    s->xml = s->reply = s->last = s->out = (struct buf){ 0 };
    s->hart = s->step_hart = 0;
    s->step_all = true;
    s->waiting = s->physical = s->done = false;
    gdb_xml_put(&s->xml);
}

void gdb_session_close(struct gdb_session *s)
{
    buf_free(&s->xml);
    buf_free(&s->reply);
    buf_free(&s->last);
    buf_free(&s->out);
}
