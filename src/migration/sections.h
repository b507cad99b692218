/* The savevm v3 envelope, and device state inside it.
 *
 *   be32 "QEVM"  be32 3  0x07 be32 length, machine name
 *   START 0x01   be32 id, str8 name, be32 instance, be32 version, data, footer
 *   PART 0x02, END 0x03   be32 id, data, footer
 *   FULL 0x04    header as START, be32 length, data, footer
 *   footer       0x7e be32 id
 *   EOF 0x00
 *
 * What has begun may be silent for the channel's silence_ms only. Reading is strict, and every sentence names the section and the field. Nothing of the machine changes before all
 * FULL sections of a stream have arrived, are complete and add up to the digest at their end. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/channel.h"
#include "base/err.h"
#include "machine/machine.h"
#include "migration/source_disk.h"
#include "migration/threads/pipeline.h"

enum {
    STREAM_MAGIC = 0x5145564d,
    STREAM_VERSION = 3,
    ELEMENT_EOF = 0x00,
    ELEMENT_START = 0x01,
    ELEMENT_PART = 0x02,
    ELEMENT_END = 0x03,
    ELEMENT_FULL = 0x04,
    ELEMENT_CONFIGURATION = 0x07,
    ELEMENT_FOOTER = 0x7e,

    SECTION_NAME_MAX = 64,
    SECTION_FULL_MAX = 1 << 20,                       /* bytes of one FULL section */
    SECTION_SOURCE_VERSION = 1,                       /* of START */
    SECTION_FULL_ID_FIRST = PIPELINE_SOURCES_MAX + 1, /* ids below belong to sources */
    SECTIONS_MAX = MACHINE_SECTIONS_MAX + 4,
};
#define STREAM_MACHINE_NAME "virt"

/* What travels beside the machine's own sections. */
struct section_handover {
    uint8_t run;       /* the guest ran when it was paused for this */
    int64_t paused_ns; /* realtime of that pause, for whoever loads a file */
};
extern const struct state_desc section_handover_state; /* "godwit/hand-over" */

struct section_digest {
    uint32_t sources;
    struct section_source_digest {
        uint32_t id;
        uint64_t digest[2];
    } source[PIPELINE_SOURCES_MAX];
    uint64_t full_sum; /* of all FULL sections before it */
};
extern const struct state_desc section_digest_state; /* "godwit/digest", the last FULL section */

/* --- writing -------------------------------------------------------------------------------------------- */

struct section_writer {
    struct buf out;
    uint64_t full_sum;
    uint32_t next_id;
    size_t data_at, data_bytes; /* of the last FULL section, in out */
};

void sections_begin(struct section_writer *writer); /* magic, version, configuration */
void sections_put_start(struct section_writer *writer, const struct source *source, const struct ram *ram);
/* A disk's START, in front of RAM's, which comes last: everything is announced then. */
struct section_disk {
    char name[BLOCK_NAME_MAX]; /* the source's, for messages */
    uint32_t slot;             /* the virtio slot: the section's instance */
    uint64_t bytes;
    uint8_t copy; /* enum disk_copy, not SHARED */
};
#define SECTION_DISK_NAME "godwit/disk"
void sections_put_disk(struct section_writer *writer, uint32_t id, const struct section_disk *disk);
void sections_put_end(struct section_writer *writer, const struct source *source, uint64_t rounds);
void sections_put_full(struct section_writer *writer, const struct state_desc *desc, uint32_t instance,
                       const void *object);
/* Bytes as they are: a section that is no state, and not in the sum. */
void sections_put_plain(struct section_writer *writer, const char *name, uint32_t version, const void *data,
                        size_t bytes);
void sections_put_digest(struct section_writer *writer, struct section_digest *digest); /* fills full_sum */
void sections_put_eof(struct section_writer *writer);
void sections_writer_free(struct section_writer *writer);

/* --- reading -------------------------------------------------------------------------------------------- */

struct section_head {
    uint8_t type;
    uint32_t id;
    char name[SECTION_NAME_MAX + 1]; /* START, FULL */
    uint32_t instance, version;
};

/* Magic (unless seen already), version, configuration. */
int sections_read_begin(struct channel *channel, bool magic_seen, struct err *err);
/* What follows an element's type byte. */
int sections_read_head(struct channel *channel, uint8_t type, struct section_head *out, struct err *err);
int sections_read_footer(struct channel *channel, const struct section_head *head, struct err *err);
/* START's block table against ours; END's count of rounds. */
int sections_read_blocks(struct channel *channel, const struct section_head *head, const struct ram *ram,
                         struct err *err);
/* A disk's body; its values are checked against what they can be, not against a machine. */
int sections_read_disk(struct channel *channel, const struct section_head *head, struct section_disk *out,
                       struct err *err);
int sections_read_end(struct channel *channel, const struct section_head *head, uint64_t *rounds, struct err *err);

/* Length and data of such a section, at most `max` bytes; appended to `out`. */
int sections_read_plain(struct channel *channel, const struct section_head *head, uint32_t max, struct buf *out,
                        struct err *err);

/* FULL sections as they come in, before any of them is loaded. */
struct section_collector {
    struct machine_section section[SECTIONS_MAX];
    struct {
        struct buf data;
        uint32_t version;
        bool seen, optional;
    } arrived[SECTIONS_MAX];
    unsigned sections;
    uint64_t full_sum;
    int64_t load_ns[SECTIONS_MAX]; /* each took so long in sections_apply */
    /* filled by sections_apply */
    struct section_handover handover;
    struct section_digest digest;
    struct machine_config *machine; /* optional "godwit/machine"; owned */
};

int sections_collect_new(struct machine *machine, struct section_collector **out, struct err *err);
int sections_collect_table(const struct machine_section *section, unsigned sections, struct section_collector **out,
                           struct err *err);
void sections_collect_reset(struct section_collector *c); /* for another load of the same machine */
void sections_collect_free(struct section_collector *c);  /* NULL allowed */
/* Read length and data of a FULL section whose head was read. -EPROTO: unknown, too new, twice, too long. A machine's
 * description is compared with ours at once. */
int sections_collect(struct section_collector *c, struct channel *channel, const struct section_head *head,
                     const struct machine_config *ours, struct err *err);
/* All there? Then decode hand-over and digest; the machine is untouched. */
int sections_complete(struct section_collector *c, struct err *err);
/* Load every section of the machine. On failure the machine is half loaded: machine_unload(). */
int sections_apply(struct section_collector *c, struct err *err);
/* What was loaded, saved once more: -EPROTO with a sentence when a section is not what has come, byte by byte. `sum` is of what
 * the machine holds now, as the source has its own from sections_sum(). */
int sections_confirm(struct section_collector *c, const struct digest_key *key, uint64_t sum[2], struct err *err);

/* Add a section to a sum over all of a machine's, in their order; keyed where there is a key. It starts as zeroes. */
void sections_sum(const struct digest_key *key, const struct state_desc *desc, uint32_t instance, uint32_t version,
                  const void *data, size_t bytes, uint64_t sum[2]);
