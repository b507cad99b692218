#include "monitor/gdb_packet.h"

enum { KEY_INTERRUPT = 3, ESCAPE = '}', ESCAPE_BIT = 0x20 };

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* --- parsing ---------------------------------------------------------------------------------------------- */

void gdb_parser_init(struct gdb_parser *parser)
{
    parser->no_acks = false;
    parser->state = GDB_OUTSIDE;
    parser->size = 0;
    parser->data[0] = '\0';
}

static void begin(struct gdb_parser *parser)
{
    parser->state = GDB_INSIDE;
    parser->escaped = parser->too_long = parser->sum_broken = false;
    parser->sum = 0;
    parser->travelled = parser->size = 0;
}

/* Noise between packets is none of our business: the other side repeats what matters. */
static enum gdb_event take_outside(struct gdb_parser *parser, uint8_t byte)
{
    switch (byte) {
    case '$': begin(parser); return GDB_NONE;
    case KEY_INTERRUPT: return GDB_INTERRUPT;
    case '+': return GDB_ACK;
    case '-': return GDB_NAK;
    default: return GDB_NONE;
    }
}

static void take_inside(struct gdb_parser *parser, uint8_t byte)
{
    if (byte == '#') {
        parser->state = GDB_SUM_HIGH;
        return;
    }
    if (byte == '$') { /* never inside: the end of the one before was lost */
        begin(parser);
        return;
    }
    parser->sum += byte;
    if (++parser->travelled > GDB_PACKET_MAX) {
        parser->too_long = true;
    } else if (byte == ESCAPE && !parser->escaped) {
        parser->escaped = true;
    } else {
        parser->data[parser->size++] = (char)(parser->escaped ? byte ^ ESCAPE_BIT : byte);
        parser->escaped = false;
    }
}

static enum gdb_event finish(struct gdb_parser *parser)
{
    parser->state = GDB_OUTSIDE;
    parser->data[parser->size] = '\0';
    if (parser->too_long)
        return GDB_TOO_LONG;
    if (!parser->no_acks && (parser->sum_broken || parser->said != parser->sum))
        return GDB_BAD_SUM;
    return GDB_PACKET;
}

static void take_sum(struct gdb_parser *parser, uint8_t byte)
{
    int value = digit_value((char)byte);
    if (value < 0)
        parser->sum_broken = true;
    parser->said = (uint8_t)(parser->said << 4 | (value & 15));
}

enum gdb_event gdb_parser_take(struct gdb_parser *parser, uint8_t byte)
{
    switch (parser->state) {
    case GDB_OUTSIDE: return take_outside(parser, byte);
    case GDB_INSIDE: take_inside(parser, byte); return GDB_NONE;
    case GDB_SUM_HIGH:
        take_sum(parser, byte);
        parser->state = GDB_SUM_LOW;
        return GDB_NONE;
    case GDB_SUM_LOW: take_sum(parser, byte); return finish(parser);
    }
    return GDB_NONE;
}

/* --- writing ---------------------------------------------------------------------------------------------- */

static bool needs_escape(uint8_t byte)
{
    return byte == '$' || byte == '#' || byte == ESCAPE || byte == '*';
}

size_t gdb_packet_fits(const void *data, size_t bytes, size_t used)
{
    const uint8_t *in = data;
    size_t i = 0;
    while (i < bytes && (used += 1 + needs_escape(in[i])) <= GDB_PACKET_MAX)
        i++;
    return i;
}

void gdb_packet_put(struct buf *out, const void *data, size_t bytes)
{
    const uint8_t *in = data;
    uint8_t sum = 0;
    buf_put_u8(out, '$');
    size_t first = out->size;
    for (size_t i = 0; i < bytes; i++) {
        bool escape = needs_escape(in[i]);
        if (escape)
            buf_put_u8(out, ESCAPE);
        buf_put_u8(out, escape ? in[i] ^ ESCAPE_BIT : in[i]);
    }
    for (size_t i = first; i < out->size; i++)
        sum += out->data[i];
    buf_put_u8(out, '#');
    gdb_put_hex(out, &sum, 1);
}

/* --- what is inside --------------------------------------------------------------------------------------- */

bool gdb_number(const char **at, uint64_t *value)
{
    const char *digit = *at;
    *value = 0;
    for (; digit_value(*digit) >= 0; digit++) {
        if (*value >> 60)
            return false;
        *value = *value << 4 | (uint64_t)digit_value(*digit);
    }
    bool some = digit > *at;
    *at = digit;
    return some;
}

bool gdb_skip(const char **at, char c)
{
    if (**at != c)
        return false;
    ++*at;
    return true;
}

bool gdb_range(const char **at, uint64_t *first, uint64_t *length)
{
    return gdb_number(at, first) && gdb_skip(at, ',') && gdb_number(at, length);
}

void gdb_put_text(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

void gdb_put_hex(struct buf *out, const void *data, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = data;
    for (size_t i = 0; i < bytes; i++) {
        buf_put_u8(out, (uint8_t)digits[in[i] >> 4]);
        buf_put_u8(out, (uint8_t)digits[in[i] & 15]);
    }
}

bool gdb_get_hex(const char *text, void *out, size_t bytes)
{
    uint8_t *to = out;
    for (size_t i = 0; i < bytes; i++, text += 2) {
        int high = digit_value(text[0]), low = high < 0 ? -1 : digit_value(text[1]);
        if (low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
