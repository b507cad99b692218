/* Packets of the GDB Remote Serial Protocol ("Overview" in the GDB manual's appendix of that name): $DATA#CHECKSUM, an
 * acknowledgement + or -, and a bare 0x03 for Ctrl-C. Pure: bytes in, packets out.
 *
 * Not shared between threads. */
#pragma once
#include "base/bytes.h"

enum { GDB_PACKET_MAX = 16 * 1024 }; /* bytes between $ and #, as they travel; what the other side sends, and we do */

enum gdb_event {
    GDB_NONE,      /* more bytes are needed */
    GDB_PACKET,    /* `data`, `size` hold it: unescaped, and with a NUL behind it */
    GDB_TOO_LONG,  /* a packet whose rest was dropped; its checksum was not looked at */
    GDB_BAD_SUM,   /* a packet that was damaged on its way */
    GDB_INTERRUPT, /* Ctrl-C */
    GDB_ACK,
    GDB_NAK,
};

struct gdb_parser {
    bool no_acks; /* the caller's: the line is reliable, checksums are not looked at */
    enum { GDB_OUTSIDE, GDB_INSIDE, GDB_SUM_HIGH, GDB_SUM_LOW } state;
    bool escaped, too_long, sum_broken;
    uint8_t sum, said;
    size_t travelled; /* bytes of this packet so far, escapes included */
    size_t size;
    char data[GDB_PACKET_MAX + 1];
};

void gdb_parser_init(struct gdb_parser *parser);
/* One byte. A packet's data is good until the next call. */
enum gdb_event gdb_parser_take(struct gdb_parser *parser, uint8_t byte);

/* Append the packet that carries `data`, escaped. */
void gdb_packet_put(struct buf *out, const void *data, size_t bytes);
/* How many of the first `bytes` of data fit into a packet beside `used` other bytes. */
size_t gdb_packet_fits(const void *data, size_t bytes, size_t used);

/* --- what is inside --------------------------------------------------------------------------------------- */

/* Numbers are hexadecimal, without a prefix, up to 16 digits. False: there is none at *at, or it is too long. */
bool gdb_number(const char **at, uint64_t *value);
/* One character that must be there. */
bool gdb_skip(const char **at, char c);
/* "addr,length" */
bool gdb_range(const char **at, uint64_t *first, uint64_t *length);

void gdb_put_text(struct buf *out, const char *text);
void gdb_put_hex(struct buf *out, const void *data, size_t bytes); /* two digits a byte */
/* Exactly 2 * bytes digits at `text`; false: there are fewer, or others. */
bool gdb_get_hex(const char *text, void *out, size_t bytes);
