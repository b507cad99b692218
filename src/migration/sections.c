#include "migration/sections.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"

/* clang-format off */
static const struct field handover_fields[] = {
    FIELD_BOOL_OF(struct section_handover, run),
    FIELD_I64_OF(struct section_handover, paused_ns),
    FIELD_TABLE_END,
};
const struct state_desc section_handover_state = {
    .name = "godwit/hand-over", .version = 1, .min_version = 1,
    .object_size = sizeof(struct section_handover), .fields = handover_fields,
};

static const struct field source_digest_fields[] = {
    FIELD_U32_OF(struct section_source_digest, id),
    FIELD_U64_ARRAY_OF(struct section_source_digest, digest),
    FIELD_TABLE_END,
};
static const struct field digest_fields[] = {
    FIELD_U32_MAX_OF(struct section_digest, sources, PIPELINE_SOURCES_MAX),
    FIELD_STRUCTS_OF(struct section_digest, source, PIPELINE_SOURCES_MAX, source_digest_fields),
    FIELD_U64_OF(struct section_digest, full_sum),
    FIELD_TABLE_END,
};
/* A stream has one spelling: what is not used is zero. */
static int digest_validate(const void *object, struct err *err)
{
    static const struct section_source_digest none;
    const struct section_digest *digest = object;
    for (unsigned i = digest->sources; i < PIPELINE_SOURCES_MAX; i++)
        if (memcmp(&digest->source[i].id, &none.id, sizeof(none.id)) != 0 ||
            memcmp(digest->source[i].digest, none.digest, sizeof(none.digest)) != 0)
            return err_set(err, -EPROTO, "section %s: row %u is filled, of %u sources", section_digest_state.name, i,
                           digest->sources);
    return 0;
}
const struct state_desc section_digest_state = {
    .name = "godwit/digest", .version = 1, .min_version = 1,
    .object_size = sizeof(struct section_digest), .fields = digest_fields, .validate = digest_validate,
};
/* clang-format on */

/* One number over all FULL sections in the order in which they travel: name, instance, version and data. */
static uint64_t sum_add(uint64_t sum, const char *name, uint32_t instance, uint32_t version, const void *data,
                        size_t bytes)
{
    uint8_t head[SECTION_NAME_MAX + 8] = { 0 };
    memcpy(head, name, strnlen(name, SECTION_NAME_MAX));
    be32_put(head + SECTION_NAME_MAX, instance);
    be32_put(head + SECTION_NAME_MAX + 4, version);
    return XXH3_64bits_withSeed(data, bytes, XXH3_64bits_withSeed(head, sizeof(head), sum));
}

void sections_sum(const struct digest_key *key, const struct state_desc *desc, uint32_t instance, uint32_t version,
                  const void *data, size_t bytes, uint64_t sum[2])
{
    uint8_t all[SECTION_NAME_MAX + 8 + 4 * sizeof(uint64_t)] = { 0 }, *at = all + SECTION_NAME_MAX;
    struct unit_hash hash = bytes ? digest_hash(key, data, bytes) : DIGEST_ZERO;
    memcpy(all, desc->name, strnlen(desc->name, SECTION_NAME_MAX));
    be32_put(at, instance);
    be32_put(at + 4, version);
    for (unsigned i = 0; i < 2; i++) {
        be64_put(at + 8 + 8 * i, hash.word[i]);
        be64_put(at + 24 + 8 * i, sum[i]);
    }
    hash = digest_hash(key, all, sizeof(all));
    sum[0] = hash.word[0];
    sum[1] = hash.word[1];
}

/* --- writing -------------------------------------------------------------------------------------------- */

void sections_begin(struct section_writer *writer)
{
    *writer = (struct section_writer){ .next_id = SECTION_FULL_ID_FIRST };
    buf_put_be32(&writer->out, STREAM_MAGIC);
    buf_put_be32(&writer->out, STREAM_VERSION);
    buf_put_u8(&writer->out, ELEMENT_CONFIGURATION);
    buf_put_be32(&writer->out, (uint32_t)strlen(STREAM_MACHINE_NAME));
    buf_put(&writer->out, STREAM_MACHINE_NAME, strlen(STREAM_MACHINE_NAME));
}

static void put_head(struct buf *out, uint8_t type, uint32_t id, const char *name, uint32_t instance, uint32_t version)
{
    assert(strlen(name) <= SECTION_NAME_MAX);
    buf_put_u8(out, type);
    buf_put_be32(out, id);
    buf_put_str8(out, name);
    buf_put_be32(out, instance);
    buf_put_be32(out, version);
}

static void put_footer(struct buf *out, uint32_t id)
{
    buf_put_u8(out, ELEMENT_FOOTER);
    buf_put_be32(out, id);
}

void sections_put_start(struct section_writer *writer, const struct source *source, const struct ram *ram)
{
    struct buf *out = &writer->out;
    put_head(out, ELEMENT_START, source->id, source->name, 0, SECTION_SOURCE_VERSION);
    buf_put_be32(out, ram->blocks);
    for (unsigned i = 0; i < ram->blocks; i++) {
        buf_put_str8(out, ram->block[i].name);
        buf_put_be64(out, ram->block[i].gpa);
        buf_put_be64(out, ram->block[i].bytes);
    }
    put_footer(out, source->id);
}

void sections_put_disk(struct section_writer *writer, uint32_t id, const struct section_disk *disk)
{
    struct buf *out = &writer->out;
    put_head(out, ELEMENT_START, id, SECTION_DISK_NAME, disk->slot, SECTION_SOURCE_VERSION);
    buf_put_str8(out, disk->name);
    buf_put_be64(out, disk->bytes);
    buf_put_u8(out, disk->copy);
    put_footer(out, id);
}

void sections_put_end(struct section_writer *writer, const struct source *source, uint64_t rounds)
{
    buf_put_u8(&writer->out, ELEMENT_END);
    buf_put_be32(&writer->out, source->id);
    buf_put_be64(&writer->out, rounds);
    put_footer(&writer->out, source->id);
}

void sections_put_full(struct section_writer *writer, const struct state_desc *desc, uint32_t instance,
                       const void *object)
{
    struct buf *out = &writer->out;
    uint32_t id = writer->next_id++;
    put_head(out, ELEMENT_FULL, id, desc->name, instance, desc->version);

    size_t length_at = out->size;
    buf_put_be32(out, 0);
    size_t data_at = out->size;
    state_save(desc, object, out);
    size_t bytes = out->size - data_at;
    assert(bytes <= SECTION_FULL_MAX);
    writer->data_at = data_at;
    writer->data_bytes = bytes;
    be32_put(out->data + length_at, (uint32_t)bytes);
    writer->full_sum =
        sum_add(writer->full_sum, desc->name, instance, desc->version, bytes ? out->data + data_at : NULL, bytes);
    put_footer(out, id);
}

void sections_put_plain(struct section_writer *writer, const char *name, uint32_t version, const void *data,
                        size_t bytes)
{
    uint32_t id = writer->next_id++;
    assert(bytes <= SECTION_FULL_MAX);
    put_head(&writer->out, ELEMENT_FULL, id, name, 0, version);
    buf_put_be32(&writer->out, (uint32_t)bytes);
    buf_put(&writer->out, data, bytes);
    put_footer(&writer->out, id);
}

void sections_put_digest(struct section_writer *writer, struct section_digest *digest)
{
    digest->full_sum = writer->full_sum;
    sections_put_full(writer, &section_digest_state, 0, digest);
}

void sections_put_eof(struct section_writer *writer)
{
    buf_put_u8(&writer->out, ELEMENT_EOF);
}

void sections_writer_free(struct section_writer *writer)
{
    buf_free(&writer->out);
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* The end of the stream inside an element, and a long silence, are the stream's fault, and named as what was cut. */
static int read_bytes(struct channel *channel, void *out, size_t bytes, const char *what, struct err *err)
{
    struct err cause = { 0 };
    int rc = channel_read_begun(channel, out, bytes, &cause);
    if (rc < 0)
        return err_set(err, rc, "%s: %s", what, cause.text);
    return 0;
}

static int read_be32(struct channel *channel, uint32_t *out, const char *what, struct err *err)
{
    uint8_t raw[4];
    int rc = read_bytes(channel, raw, sizeof(raw), what, err);
    *out = rc < 0 ? 0 : be32_get(raw);
    return rc;
}

static int read_str8(struct channel *channel, char *out, size_t out_size, const char *what, struct err *err)
{
    uint8_t length;
    int rc = read_bytes(channel, &length, 1, what, err);
    if (rc < 0)
        return rc;
    if (length == 0 || length > out_size - 1)
        return err_set(err, -EPROTO, "%s: a name of %u bytes, the limit is %zu", what, length, out_size - 1);
    rc = read_bytes(channel, out, length, what, err);
    if (rc < 0)
        return rc;
    out[length] = '\0';
    for (unsigned i = 0; i < length; i++)
        if (out[i] < 0x21 || out[i] > 0x7e) /* also what a terminal would obey */
            return err_set(err, -EPROTO, "%s: byte 0x%02x in a name", what, (uint8_t)out[i]);
    return 0;
}

int sections_read_begin(struct channel *channel, bool magic_seen, struct err *err)
{
    uint32_t magic = STREAM_MAGIC, version, length;
    int rc = magic_seen ? 0 : read_be32(channel, &magic, "stream magic", err);
    if (rc == 0 && magic != STREAM_MAGIC)
        return err_set(err, -EPROTO, "the stream begins with 0x%08x, not with 0x%08x: it is no migration stream", magic,
                       STREAM_MAGIC);
    if (rc == 0)
        rc = read_be32(channel, &version, "stream version", err);
    if (rc == 0 && version != STREAM_VERSION)
        return err_set(err, -EPROTO, "stream version %u is not supported, %d is", version, STREAM_VERSION);

    uint8_t type = 0;
    char name[SECTION_NAME_MAX + 1] = "";
    if (rc == 0)
        rc = read_bytes(channel, &type, 1, "configuration", err);
    if (rc == 0 && type != ELEMENT_CONFIGURATION)
        return err_set(err, -EPROTO, "element 0x%02x where the configuration must stand", type);
    if (rc == 0)
        rc = read_be32(channel, &length, "configuration", err);
    if (rc == 0 && length > SECTION_NAME_MAX)
        return err_set(err, -EPROTO, "configuration: a machine name of %u bytes, the limit is %d", length,
                       SECTION_NAME_MAX);
    if (rc == 0)
        rc = read_bytes(channel, name, length, "configuration", err);
    if (rc == 0 && (length != strlen(STREAM_MACHINE_NAME) || memcmp(name, STREAM_MACHINE_NAME, length) != 0))
        return err_set(err, -EPROTO, "configuration: the stream's machine is not '%s'", STREAM_MACHINE_NAME);
    return rc;
}

int sections_read_head(struct channel *channel, uint8_t type, struct section_head *out, struct err *err)
{
    *out = (struct section_head){ .type = type };
    int rc = read_be32(channel, &out->id, "section header", err);
    if (rc < 0 || type == ELEMENT_PART || type == ELEMENT_END)
        return rc;
    rc = read_str8(channel, out->name, sizeof(out->name), "section header", err);
    if (rc == 0)
        rc = read_be32(channel, &out->instance, out->name, err);
    if (rc == 0)
        rc = read_be32(channel, &out->version, out->name, err);
    return rc;
}

int sections_read_footer(struct channel *channel, const struct section_head *head, struct err *err)
{
    uint8_t raw[5];
    char what[SECTION_NAME_MAX + 32];
    snprintf(what, sizeof(what), "section %u%s%s: footer", head->id, head->name[0] ? " " : "", head->name);
    int rc = read_bytes(channel, raw, sizeof(raw), what, err);
    if (rc == 0 && raw[0] != ELEMENT_FOOTER)
        return err_set(err, -EPROTO, "%s: 0x%02x where 0x%02x must stand", what, raw[0], ELEMENT_FOOTER);
    if (rc == 0 && be32_get(raw + 1) != head->id)
        return err_set(err, -EPROTO, "%s: it names section %u", what, be32_get(raw + 1));
    return rc;
}

int sections_read_blocks(struct channel *channel, const struct section_head *head, const struct ram *ram,
                         struct err *err)
{
    uint32_t count;
    if (head->version != SECTION_SOURCE_VERSION)
        return err_set(err, -EPROTO, "section %s: version %u, only %d is understood", head->name, head->version,
                       SECTION_SOURCE_VERSION);
    int rc = read_be32(channel, &count, "block table", err);
    if (rc < 0)
        return rc;
    if (count != ram->blocks)
        return err_set(err, -EPROTO, "section %s: block table of %u blocks, this machine has %u", head->name, count,
                       ram->blocks);
    for (uint32_t i = 0; i < count; i++) {
        const struct ram_block *ours = &ram->block[i];
        char name[RAM_NAME_MAX];
        uint8_t raw[16];
        rc = read_str8(channel, name, sizeof(name), "block table", err);
        if (rc == 0)
            rc = read_bytes(channel, raw, sizeof(raw), "block table", err);
        if (rc < 0)
            return rc;
        if (strcmp(name, ours->name) != 0)
            return err_set(err, -EPROTO, "section %s: block %u is '%s' there and '%s' here", head->name, i, name,
                           ours->name);
        if (be64_get(raw) != ours->gpa)
            return err_set(err, -EPROTO, "section %s: block %s lies at 0x%" PRIx64 " there and at 0x%" PRIx64 " here",
                           head->name, name, be64_get(raw), ours->gpa);
        if (be64_get(raw + 8) != ours->bytes)
            return err_set(err, -EPROTO, "section %s: block %s has %" PRIu64 " bytes there and %" PRIu64 " here",
                           head->name, name, be64_get(raw + 8), ours->bytes);
    }
    return 0;
}

int sections_read_disk(struct channel *channel, const struct section_head *head, struct section_disk *out,
                       struct err *err)
{
    uint8_t raw[9] = { 0 };
    *out = (struct section_disk){ .slot = head->instance };
    if (head->version != SECTION_SOURCE_VERSION)
        return err_set(err, -EPROTO, "section %s: version %u, only %d is understood", head->name, head->version,
                       SECTION_SOURCE_VERSION);
    int rc = read_str8(channel, out->name, sizeof(out->name), SECTION_DISK_NAME, err);
    if (rc == 0)
        rc = read_bytes(channel, raw, sizeof(raw), SECTION_DISK_NAME, err);
    if (rc < 0)
        return rc;
    out->bytes = be64_get(raw);
    out->copy = raw[8];
    if (out->slot >= MACHINE_SLOTS || out->bytes == 0 || out->bytes % BLOCK_SECTOR_BYTES || out->bytes > INT64_MAX ||
        (out->copy != DISK_FULL && out->copy != DISK_TOP))
        return err_set(err, -EPROTO, "section %s: slot %u, %" PRIu64 " bytes, way %u of copying: no such disk",
                       head->name, out->slot, out->bytes, out->copy);
    return 0;
}

int sections_read_end(struct channel *channel, const struct section_head *head, uint64_t *rounds, struct err *err)
{
    (void)head;
    uint8_t raw[8];
    int rc = read_bytes(channel, raw, sizeof(raw), "end of a source", err);
    *rounds = rc < 0 ? 0 : be64_get(raw);
    return rc;
}

int sections_read_plain(struct channel *channel, const struct section_head *head, uint32_t max, struct buf *out,
                        struct err *err)
{
    uint32_t bytes;
    int rc = read_be32(channel, &bytes, head->name, err);
    if (rc == 0 && bytes > max)
        rc = err_set(err, -EPROTO, "section %s: length %u is beyond the limit of %u", head->name, bytes, max);
    return rc < 0 || bytes == 0 ? rc : read_bytes(channel, buf_grow(out, bytes), bytes, head->name, err);
}

static unsigned add_section(struct section_collector *c, const struct state_desc *desc, void *object)
{
    assert(c->sections < SECTIONS_MAX);
    c->section[c->sections] = (struct machine_section){ .desc = desc, .object = object };
    return c->sections++;
}

int sections_collect_new(struct machine *machine, struct section_collector **out, struct err *err)
{
    struct machine_section section[MACHINE_SECTIONS_MAX];
    unsigned sections = machine_sections(machine, section);
    return sections_collect_table(section, sections, out, err);
}

int sections_collect_table(const struct machine_section *section, unsigned sections, struct section_collector **out,
                           struct err *err)
{
    struct section_collector *c = calloc(1, sizeof(*c));
    if (c)
        c->machine = calloc(1, sizeof(*c->machine));
    if (!c || !c->machine) {
        free(c);
        return err_set(err, -ENOMEM, "no memory for incoming sections");
    }
    assert(sections <= MACHINE_SECTIONS_MAX);
    memcpy(c->section, section, sections * sizeof(section[0]));
    c->sections = sections;
    add_section(c, &section_handover_state, &c->handover);
    add_section(c, &section_digest_state, &c->digest);
    /* Between godwits the hello has told it already. */
    c->arrived[add_section(c, &machine_config_state, c->machine)].optional = true;
    *out = c;
    return 0;
}

void sections_collect_reset(struct section_collector *c)
{
    for (unsigned i = 0; i < c->sections; i++) {
        buf_free(&c->arrived[i].data);
        c->arrived[i].seen = false;
    }
    c->full_sum = 0;
}

void sections_collect_free(struct section_collector *c)
{
    if (!c)
        return;
    sections_collect_reset(c);
    free(c->machine);
    free(c);
}

static int find_section(const struct section_collector *c, const struct section_head *head, struct err *err)
{
    for (unsigned i = 0; i < c->sections; i++)
        if (c->section[i].instance == head->instance && strcmp(c->section[i].desc->name, head->name) == 0)
            return (int)i;
    return err_set(err, -EPROTO, "section %s, instance %u: this machine has no such part", head->name, head->instance);
}

int sections_collect(struct section_collector *c, struct channel *channel, const struct section_head *head,
                     const struct machine_config *ours, struct err *err)
{
    int index = find_section(c, head, err);
    if (index < 0)
        return index;
    const struct state_desc *desc = c->section[index].desc;
    if (head->version > desc->version || head->version < desc->min_version)
        return err_set(err, -EPROTO, "section %s, instance %u: version %u, understood are %u to %u", head->name,
                       head->instance, head->version, desc->min_version, desc->version);
    if (c->arrived[index].seen)
        return err_set(err, -EPROTO, "section %s, instance %u: it came twice", head->name, head->instance);

    uint32_t bytes;
    int rc = read_be32(channel, &bytes, head->name, err);
    if (rc < 0)
        return rc;
    if (bytes > SECTION_FULL_MAX)
        return err_set(err, -EPROTO, "section %s, instance %u: length %u is beyond the limit of %d", head->name,
                       head->instance, bytes, SECTION_FULL_MAX);
    if (bytes > state_wire_bytes(desc, head->version)) /* and no more memory than that */
        return err_set(err, -EPROTO, "section %s, instance %u: length %u, but version %u has %zu bytes", head->name,
                       head->instance, bytes, head->version, state_wire_bytes(desc, head->version));
    struct buf *data = &c->arrived[index].data;
    if (bytes) {
        rc = read_bytes(channel, buf_grow(data, bytes), bytes, head->name, err);
        if (rc < 0)
            return rc;
    }
    c->arrived[index].seen = true;
    c->arrived[index].version = head->version;
    if (desc != &section_digest_state)
        c->full_sum = sum_add(c->full_sum, head->name, head->instance, head->version, data->data, bytes);
    if (desc != &machine_config_state)
        return 0;

    struct reader in = reader_of(data->data, data->size);
    rc = state_load(desc, c->machine, head->version, &in, err);
    return rc < 0 ? rc : machine_config_match(ours, c->machine, err);
}

static int load_one(struct section_collector *c, unsigned index, struct err *err)
{
    const struct machine_section *section = &c->section[index];
    struct reader in = reader_of(c->arrived[index].data.data, c->arrived[index].data.size);
    if (section->lock)
        lock(section->lock);
    int rc = state_load(section->desc, section->object, c->arrived[index].version, &in, err);
    if (section->lock)
        unlock(section->lock);
    return rc;
}

int sections_complete(struct section_collector *c, struct err *err)
{
    for (unsigned i = 0; i < c->sections; i++)
        if (!c->arrived[i].seen && !c->arrived[i].optional)
            return err_set(err, -EPROTO, "section %s, instance %u: it is missing from the stream",
                           c->section[i].desc->name, c->section[i].instance);
    for (unsigned i = 0; i < c->sections; i++)
        if (c->section[i].desc == &section_handover_state || c->section[i].desc == &section_digest_state) {
            int rc = load_one(c, i, err);
            if (rc < 0)
                return rc;
        }
    if (c->digest.full_sum != c->full_sum)
        return err_set(err, -EPROTO, "section %s: the device sections do not add up", section_digest_state.name);
    return 0;
}

static bool is_machine_state(const struct state_desc *desc)
{
    return desc != &section_handover_state && desc != &section_digest_state && desc != &machine_config_state;
}

int sections_apply(struct section_collector *c, struct err *err)
{
    for (unsigned i = 0; i < c->sections; i++) {
        if (!is_machine_state(c->section[i].desc))
            continue;
        int64_t start_ns = clock_now_ns();
        int rc = load_one(c, i, err);
        c->load_ns[i] = clock_now_ns() - start_ns;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int confirm_one(struct section_collector *c, unsigned index, const struct digest_key *key, struct buf *now,
                       uint64_t sum[2], struct err *err)
{
    const struct machine_section *section = &c->section[index];
    const struct buf *came = &c->arrived[index].data;
    uint32_t version = c->arrived[index].version;
    if (version != section->desc->version) { /* an older one cannot be saved again: what has come stands for it */
        sections_sum(key, section->desc, section->instance, version, came->data, came->size, sum);
        return 0;
    }
    now->size = 0;
    if (section->lock)
        lock(section->lock);
    state_save(section->desc, section->object, now);
    if (section->lock)
        unlock(section->lock);
    sections_sum(key, section->desc, section->instance, version, now->data, now->size, sum);
    size_t same = 0;
    while (same < now->size && same < came->size && now->data[same] == came->data[same])
        same++;
    if (same < now->size || same < came->size)
        return err_set(err, -EPROTO, "section %s, instance %u: byte %zu is not what was sent after it was loaded",
                       section->desc->name, section->instance, same);
    return 0;
}

int sections_confirm(struct section_collector *c, const struct digest_key *key, uint64_t sum[2], struct err *err)
{
    struct buf now = { 0 };
    int rc = 0;
    sum[0] = sum[1] = 0;
    for (unsigned i = 0; i < c->sections && rc == 0; i++)
        if (is_machine_state(c->section[i].desc))
            rc = confirm_one(c, i, key, &now, sum, err);
    buf_free(&now);
    return rc;
}
