#include "migration/params.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "migration/converge.h"

#define MIB       (UINT64_C(1) << 20)
#define RATE_MAX  (UINT64_C(1) << 50) /* beyond any link; keeps rate x time inside 64 bits */
#define LIMIT_MAX UINT64_C(2000000)   /* ms, QEMU's bound on downtime-limit */

static const char *const compression_names[] = { "auto", "none", "lz4", "zstd", NULL };
static const char *const on_stall[] = { "continue", "give-up", "stop", NULL }; /* enum converge_on_stall */
static const char *const off_on[] = { "off", "on", NULL };
static const char *const verify_names[] = { "digest", "full", NULL };

#define AT(member) offsetof(struct migration_params, member)

/* clang-format off */
const struct param_row param_table[] = {
    { "max-bandwidth", NULL, PARAM_SIZE_PER_S, AT(max_bandwidth_bytes_per_s), 0, RATE_MAX, 0, NULL,
      "bytes a second on the wire while the guest runs, 0: no cap; a bare number a person types means MiB" },
    { "downtime-limit", NULL, PARAM_MS, AT(downtime_limit_ms), 0, LIMIT_MAX, 300, NULL,
      "longest pause the guest should see, ms" },
    { "threads", NULL, PARAM_COUNT, AT(threads), 0, PIPELINE_WORKERS_MAX, 0, NULL,
      "worker threads that scan and compress, or load; 0: one for every host CPU" },
    { "channels", "multifd-channels", PARAM_COUNT, AT(channels), 1, PIPELINE_CHANNELS_MAX, 1, NULL,
      "connections that memory travels over, opened beside the main one; 1: everything over that (tcp and unix)" },
    { "avail-switchover-bandwidth", NULL, PARAM_SIZE_PER_S, AT(avail_switchover_bandwidth), 0, RATE_MAX, 0, NULL,
      "bytes a second that the link gives during the pause, 0: measure" },
    { "compression", "multifd-compression", PARAM_CHOICE, AT(compression), 0, CODECS, 0, compression_names,
      "codec for pages that are not zero; auto: what clears most of them with the link and the CPUs there are" },
    { "compression-acceleration", NULL, PARAM_COUNT, AT(compression_acceleration), 1, 65537, 1, NULL,
      "compression lz4: higher is faster and compresses less" },
    { "delta-cache-size", "xbzrle-cache-size", PARAM_SIZE, AT(delta_cache_bytes), 4096, UINT64_C(1) << 44,
      512 * MIB, NULL, "deltas: memory for copies of pages as they were sent last, at most; taken as they are needed" },
    { "peer-timeout", NULL, PARAM_MS, AT(peer_timeout_ms), 100, LIMIT_MAX, 10000, NULL,
      "a peer that says nothing for this long is given up, ms" },
    { "reconnect-time", NULL, PARAM_MS, AT(reconnect_ms), 0, LIMIT_MAX, 30000, NULL,
      "how long a source that was cut off after letting the guest go asks again by itself, ms; 0: never" },
    { "max-rounds", NULL, PARAM_COUNT, AT(max_rounds), 0, UINT32_MAX, 0, NULL,
      "give up when this many rounds did not bring the pause under its limit; 0: as many as it takes" },
    { "on-stall", NULL, PARAM_CHOICE, AT(on_stall), 0, CONVERGE_STALL_STOP, CONVERGE_STALL_GIVE_UP, on_stall,
      "when rounds no longer make the pause shorter and it does not fit its limit: give up, accept the best pause seen "
      "(stop), or copy on" },
    { "stall-rounds", NULL, PARAM_COUNT, AT(stall_rounds), 1, UINT32_MAX, 5, NULL,
      "on-stall: so many rounds have foreseen no shorter pause, all that may be taken from vCPUs taken" },
    { "stall-time", NULL, PARAM_MS, AT(stall_ms), 0, LIMIT_MAX, 10000, NULL,
      "on-stall: and for so long, ms" },
    { "cpu-throttle-initial", NULL, PARAM_COUNT, AT(cpu_throttle_initial), 1, 99, 50, NULL,
      "auto-converge: percent of its work that may be taken from a vCPU that dirties too fast, at first" },
    { "cpu-throttle-increment", NULL, PARAM_COUNT, AT(cpu_throttle_increment), 1, 99, 10, NULL,
      "auto-converge: percent that may be taken in addition after each further round" },
    { "max-cpu-throttle", NULL, PARAM_COUNT, AT(max_cpu_throttle), 1, 99, 50, NULL,
      "auto-converge: percent of its work that may be taken from a vCPU at most" },
    { "warm-arrival", NULL, PARAM_CHOICE, AT(warm_arrival), 0, 1, 1, off_on,
      "tell the destination which code is hot, to translate it before the guest runs there" },
    { "verify", NULL, PARAM_CHOICE, AT(verify), 0, 1, VERIFY_DIGEST, verify_names,
      "what proves in the pause that both sides hold the same: digest, kept up as memory travels; full: all of it is hashed again "
      "on both sides, which makes the pause longer" },
    { "progress-interval", NULL, PARAM_MS, AT(announce_ms), 10, 60000, 500, NULL,
      "how often monitors show progress, ms" },
    { "audit", NULL, PARAM_COUNT, AT(audit), 0, 1000, 5, NULL,
      "after a round so many clean pages are looked at for every 1000 that it sent, and four times as many in the pause; one that "
      "changed without being marked ends the migration; 1000: all there are, 0: none" },
};
const unsigned param_rows = sizeof(param_table) / sizeof(param_table[0]);

const struct text_row text_table[] = {
    { "tls-creds", AT(tls_creds), "TLS 1.3 on all connections, with the credentials of this -object; empty: no TLS" },
    { "tls-hostname", AT(tls_hostname),
      "name that the destination's certificate must be for; empty: the host of tcp:HOST:PORT" },
    { "tls-authz", AT(tls_authz), "destination: the -object authz-... that lists who may send a guest; empty: all" },
};
const unsigned text_rows = sizeof(text_table) / sizeof(text_table[0]);

const struct capability_row capability_table[] = {
    { "events", NULL, AT(capability_events), false, "send MIGRATION events to QMP clients" },
    { "auto-converge", NULL, AT(capability_auto_converge), false,
      "hold vCPUs back that dirty memory faster than rounds can clear it, by a quota of newly dirtied pages" },
    { "multifd", NULL, AT(capability_multifd), false, "several connections: channels 2, where no more are asked for" },
    { "block", NULL, AT(capability_block), false, "copy the disks too, as `migrate -b` does for one migration" },
    { "deltas", "xbzrle", AT(capability_deltas), true,
      "send of pages that changed little only the lines that differ from what was sent last, while that pays" },
    { "return-path", NULL, AT(capability_return_path), false,
      "exec: the command leads to another godwit that answers (sockets always use the way back)" },
};
const unsigned capability_rows = sizeof(capability_table) / sizeof(capability_table[0]);
/* clang-format on */

static _Atomic uint64_t *param_cell(struct migration_params *params, const struct param_row *row)
{
    return (_Atomic uint64_t *)((char *)params + row->offset);
}

static _Atomic bool *capability_cell(struct migration_params *params, const struct capability_row *row)
{
    return (_Atomic bool *)((char *)params + row->offset);
}

const char *param_codec_name(enum codec codec)
{
    return compression_names[codec + 1];
}

static void pass_on(struct migration_params *params)
{
    struct pipeline_tunables *live = &params->live;
    uint64_t choice = atomic_load_explicit(&params->compression, memory_order_relaxed);
    uint64_t codec = choice ? choice - 1 : CODEC_AUTO; /* the names are in the order of enum codec, behind auto */
    uint64_t acceleration = atomic_load_explicit(&params->compression_acceleration, memory_order_relaxed);
    uint64_t cap = atomic_load_explicit(&params->max_bandwidth_bytes_per_s, memory_order_relaxed);
    atomic_store_explicit(&live->codec, (uint32_t)codec, memory_order_relaxed);
    atomic_store_explicit(&live->acceleration, (int32_t)acceleration, memory_order_relaxed);
    atomic_store_explicit(&live->max_bytes_per_s, cap, memory_order_relaxed);
}

void params_init(struct migration_params *params)
{
    for (unsigned i = 0; i < param_rows; i++)
        atomic_init(param_cell(params, &param_table[i]), param_table[i].start);
    for (unsigned i = 0; i < capability_rows; i++)
        atomic_init(capability_cell(params, &capability_table[i]), capability_table[i].start);

    params->tls_creds[0] = params->tls_hostname[0] = params->tls_authz[0] = '\0';

    int cpus = thread_host_cpus();
    atomic_init(&params->threads, (uint64_t)(cpus > PIPELINE_WORKERS_MAX ? PIPELINE_WORKERS_MAX : cpus));
    atomic_init(&params->live.uncapped, false);
    pass_on(params);
}

const struct param_row *param_find(const char *name)
{
    for (unsigned i = 0; i < param_rows; i++) {
        const struct param_row *row = &param_table[i];
        if (strcmp(row->name, name) == 0 || (row->alias && strcmp(row->alias, name) == 0))
            return row;
    }
    return NULL;
}

int parse_size(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]) && text[0] != '.')
        return -EINVAL;

    uint64_t whole = 0;
    const char *at = text;
    for (; isdigit((unsigned char)*at); at++)
        if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, (uint64_t)(*at - '0'), &whole))
            return -EINVAL;

    double fraction = 0, weight = 0.1;
    bool point = *at == '.';
    if (point) {
        at++;
        if (!isdigit((unsigned char)*at))
            return -EINVAL;
        for (; isdigit((unsigned char)*at); at++, weight /= 10)
            fraction += (*at - '0') * weight;
    }

    unsigned shift = 0;
    switch (toupper((unsigned char)*at)) {
    case 'B': at++; break;
    case 'K': shift = 10, at++; break;
    case 'M': shift = 20, at++; break;
    case 'G': shift = 30, at++; break;
    case 'T': shift = 40, at++; break;
    case 'P': shift = 50, at++; break;
    case 'E': shift = 60, at++; break;
    case '\0': break;
    default: return -EINVAL;
    }
    if (*at != '\0' || (shift && whole > UINT64_MAX >> shift))
        return -EINVAL;
    if (point && shift == 0 && fraction > 0)
        return -EINVAL; /* half a byte */

    uint64_t tail = (uint64_t)(fraction * (double)(UINT64_C(1) << shift));
    return __builtin_add_overflow(whole << shift, tail, out) ? -EINVAL : 0;
}

static int param_store(struct migration_params *params, const struct param_row *row, uint64_t value, const char *given,
                       struct err *err)
{
    if (value < row->min || value > row->max)
        return err_set(err, -EINVAL, "parameter %s: %s is outside %" PRIu64 " to %" PRIu64, row->name, given, row->min,
                       row->max);
    if (row->offset == AT(threads) && value == 0)
        value = (uint64_t)thread_host_cpus();
    atomic_store_explicit(param_cell(params, row), value, memory_order_relaxed);
    pass_on(params);
    return 0;
}

static int choice_index(const struct param_row *row, const char *text, uint64_t *out)
{
    for (uint64_t i = 0; row->choices[i]; i++)
        if (strcmp(row->choices[i], text) == 0) {
            *out = i;
            return 0;
        }
    return -EINVAL;
}

static int no_such(const char *what, const char *name, struct err *err)
{
    return err_set(err, -EINVAL, "there is no migration %s '%.64s'", what, name);
}

const struct text_row *param_find_words(const char *name)
{
    for (unsigned i = 0; i < text_rows; i++)
        if (strcmp(text_table[i].name, name) == 0)
            return &text_table[i];
    return NULL;
}

const char *param_get_words(const struct migration_params *params, const struct text_row *row)
{
    return (const char *)params + row->offset;
}

static int set_words(struct migration_params *params, const struct text_row *row, const char *text, struct err *err)
{
    if (strlen(text) >= PARAM_TEXT_MAX)
        return err_set(err, -EINVAL, "parameter %s: it has up to %d bytes", row->name, PARAM_TEXT_MAX - 1);
    strcpy((char *)params + row->offset, text);
    return 0;
}

int param_set_text(struct migration_params *params, const char *name, const char *text, struct err *err)
{
    const struct text_row *words = param_find_words(name);
    if (words)
        return set_words(params, words, text, err);
    const struct param_row *row = param_find(name);
    if (!row)
        return no_such("parameter", name, err);

    uint64_t value = 0;
    int bad = row->kind == PARAM_CHOICE ? choice_index(row, text, &value) : parse_size(text, &value);
    if (row->kind == PARAM_MS || row->kind == PARAM_COUNT)
        bad = bad || strspn(text, "0123456789") != strlen(text);
    if (bad && row->kind == PARAM_CHOICE) {
        char known[128] = "";
        size_t used = 0;
        for (uint64_t i = 0; row->choices[i] && used < sizeof(known); i++)
            used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", row->choices[i]);
        return err_set(err, -EINVAL, "parameter %s: '%.64s' is none of %s", row->name, text, known);
    }
    if (bad)
        return err_set(err, -EINVAL, "parameter %s: '%.64s' is not a number", row->name, text);

    /* QEMU's human monitor takes a bare bandwidth as MiB/s, and fingers know it. */
    if (row->kind == PARAM_SIZE_PER_S && strspn(text, "0123456789") == strlen(text))
        value = value > RATE_MAX / MIB ? UINT64_MAX : value * MIB;
    return param_store(params, row, value, text, err);
}

int param_set_number(struct migration_params *params, const char *name, uint64_t value, struct err *err)
{
    const struct param_row *row = param_find(name);
    if (!row)
        return no_such("parameter", name, err);
    char given[24];
    snprintf(given, sizeof(given), "%" PRIu64, value);
    return param_store(params, row, value, given, err);
}

uint64_t param_get(const struct migration_params *params, const struct param_row *row)
{
    return atomic_load_explicit(param_cell((struct migration_params *)params, row), memory_order_relaxed);
}

const struct capability_row *capability_find(const char *name)
{
    for (unsigned i = 0; i < capability_rows; i++) {
        const struct capability_row *row = &capability_table[i];
        if (strcmp(row->name, name) == 0 || (row->alias && strcmp(row->alias, name) == 0))
            return row;
    }
    return NULL;
}

int capability_set(struct migration_params *params, const char *name, bool on, struct err *err)
{
    const struct capability_row *row = capability_find(name);
    if (!row)
        return no_such("capability", name, err);
    atomic_store_explicit(capability_cell(params, row), on, memory_order_relaxed);
    return 0;
}

bool capability_get(const struct migration_params *params, const struct capability_row *row)
{
    return atomic_load_explicit(capability_cell((struct migration_params *)params, row), memory_order_relaxed);
}
