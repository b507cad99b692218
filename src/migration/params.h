/* THE table of tunables: command line, HMP, QMP, help and range check come from one row each. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "migration/threads/pipeline.h"

enum verify_how { VERIFY_DIGEST, VERIFY_FULL };
enum { PARAM_TEXT_MAX = 256 };

struct migration_params {
    _Atomic uint64_t max_bandwidth_bytes_per_s;  /* "max-bandwidth"; 0: no cap */
    _Atomic uint64_t downtime_limit_ms;          /* "downtime-limit", default 300 */
    _Atomic uint64_t threads;                    /* "threads", default host CPUs */
    _Atomic uint64_t channels;                   /* "channels"; 1: everything over the one connection */
    _Atomic uint64_t avail_switchover_bandwidth; /* "avail-switchover-bandwidth"; 0: measure */
    _Atomic uint64_t compression;                /* "compression": auto, none, lz4, zstd */
    _Atomic uint64_t compression_acceleration;   /* "compression-acceleration" 1..65537 */
    _Atomic uint64_t peer_timeout_ms;            /* "peer-timeout": a silent peer is given up after this */
    _Atomic uint64_t reconnect_ms;               /* "reconnect-time": how long a source in doubt asks again; 0: never */
    _Atomic uint64_t max_rounds;                 /* "max-rounds"; 0: as many as it takes */
    _Atomic uint64_t on_stall;                   /* "on-stall": enum converge_on_stall */
    _Atomic uint64_t stall_rounds, stall_ms;     /* "stall-rounds", "stall-time": without a better pause */
    _Atomic uint64_t announce_ms;                /* "progress-interval" of monitors */
    _Atomic uint64_t delta_cache_bytes;          /* "delta-cache-size": copies of what was sent, at most */
    _Atomic uint64_t audit;                      /* "audit": permille of what a round sent; 0: none */
    _Atomic uint64_t warm_arrival;               /* "warm-arrival": off, on */
    _Atomic uint64_t verify;                     /* "verify": enum verify_how */
    _Atomic bool capability_events;              /* capabilities, spelled as QEMU does */
    _Atomic bool capability_return_path;
    _Atomic bool capability_multifd;         /* "multifd": at least 2 channels */
    _Atomic bool capability_block;           /* "block": disks are copied */
    _Atomic bool capability_deltas;          /* "deltas": of pages that changed little, while it pays */
    _Atomic bool capability_auto_converge;   /* "auto-converge": quotas for harts that dirty too fast */
    _Atomic uint64_t cpu_throttle_initial;   /* "cpu-throttle-initial": %, taken from a hart at most, at first */
    _Atomic uint64_t cpu_throttle_increment; /* "cpu-throttle-increment": %, so much more after each round */
    _Atomic uint64_t max_cpu_throttle;       /* "max-cpu-throttle": %, and never more */
    struct pipeline_tunables live;           /* what a running street reads; every set is passed on at once */
    /* the main thread's; a migration reads them when it begins (lines.h) */
    char tls_creds[PARAM_TEXT_MAX];    /* "tls-creds": an object's id; "": no TLS */
    char tls_hostname[PARAM_TEXT_MAX]; /* "tls-hostname"; "": the address's */
    char tls_authz[PARAM_TEXT_MAX];    /* "tls-authz": an object's id; "": whoever has credentials */
};

enum param_kind { PARAM_SIZE, PARAM_MS, PARAM_COUNT, PARAM_CHOICE, PARAM_SIZE_PER_S };

struct param_row {
    const char *name;  /* QMP spelling, also HMP's and the command line's */
    const char *alias; /* an old spelling, or NULL */
    enum param_kind kind;
    size_t offset; /* of an _Atomic uint64_t in struct migration_params */
    uint64_t min, max, start;
    const char *const *choices; /* PARAM_CHOICE: names, NULL-terminated, value = index */
    const char *help;
};
extern const struct param_row param_table[];
extern const unsigned param_rows;

struct text_row {
    const char *name; /* as QEMU spells it */
    size_t offset;    /* of a char[PARAM_TEXT_MAX] */
    const char *help;
};
extern const struct text_row text_table[];
extern const unsigned text_rows;
const struct text_row *param_find_words(const char *name); /* NULL: none that is words */
const char *param_get_words(const struct migration_params *params, const struct text_row *row);

struct capability_row {
    const char *name;  /* as QEMU spells it where it has one */
    const char *alias; /* its other spelling, or NULL */
    size_t offset;     /* of an _Atomic bool */
    bool start;
    const char *help;
};
extern const struct capability_row capability_table[];
extern const unsigned capability_rows;
const struct capability_row *capability_find(const char *name); /* name or alias; NULL */

void params_init(struct migration_params *params);    /* start values */
const struct param_row *param_find(const char *name); /* name or alias; NULL */
/* Parse as a person types it ("300", "50M", "1.5G", "lz4", words) and set; -EINVAL with name, value and range. */
int param_set_text(struct migration_params *params, const char *name, const char *text, struct err *err);
int param_set_number(struct migration_params *params, const char *name, uint64_t value, struct err *err);
uint64_t param_get(const struct migration_params *params, const struct param_row *row);
int capability_set(struct migration_params *params, const char *name, bool on, struct err *err);
bool capability_get(const struct migration_params *params, const struct capability_row *row);

const char *param_codec_name(enum codec codec); /* as "compression" spells it */

/* "64K", "1.5G", "300": binary suffixes; -EINVAL on garbage or overflow. */
int parse_size(const char *text, uint64_t *out);
