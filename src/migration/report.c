#include "migration/report.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"

/* --- the pause ------------------------------------------------------------------------------------------ */

static const char *const part_names[PAUSE_PARTS][2] = {
    [PAUSE_STOP] = { "stop", "stopping the vCPUs" },
    [PAUSE_DRAIN] = { "drain", "devices finish what they do" },
    [PAUSE_DISKS] = { "disks", "disks: what was written becomes durable" },
    [PAUSE_HARVEST] = { "harvest", "last harvest of dirty pages" },
    [PAUSE_RAM] = { "ram", "RAM: the last round" },
    [PAUSE_DEVICES] = { "devices", "devices: collected and sent" },
    [PAUSE_ARRIVE] = { "arrive", "RAM: its rest arrives and is loaded there" },
    [PAUSE_LOAD] = { "load", "loading and checks at the destination" },
    [PAUSE_RELEASE] = { "release", "RELEASED written down" },
    [PAUSE_START] = { "start", "GO to the first instruction" },
    [PAUSE_TRIPS] = { "round-trips", "round trips" },
};

const char *pause_part_name(enum pause_part part)
{
    return part_names[part][0];
}

const char *pause_part_text(enum pause_part part)
{
    return part_names[part][1];
}

/* 0 when one of the two did not happen. */
static int64_t between(int64_t from_ns, int64_t to_ns)
{
    return from_ns > 0 && to_ns > from_ns ? to_ns - from_ns : 0;
}

static int64_t cut(int64_t ns, int64_t most_ns)
{
    return ns < 0 ? 0 : ns < most_ns ? ns : most_ns;
}

/* An answer may be here before the thread that asked has come to note that it asked. */
static struct pause_moments in_order(struct pause_moments at)
{
    int64_t *const moments[] = { &at.requested_ns, &at.stopped_ns,  &at.drained_ns, &at.flushed_ns, &at.round_ns,
                                 &at.sent_ns,      &at.prepared_ns, &at.go_ns,      &at.running_ns };
    int64_t last_ns = 0;
    for (unsigned i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        if (*moments[i] > 0 && *moments[i] < last_ns)
            *moments[i] = last_ns;
        last_ns = *moments[i] > last_ns ? *moments[i] : last_ns;
    }
    return at;
}

void pause_split(const struct pause_moments *moments, const struct pause_told *told, struct pause_parts *out)
{
    const struct pause_moments ordered = in_order(*moments), *at = &ordered;
    memset(out, 0, sizeof(*out));
    int64_t ram_ns = between(at->flushed_ns, at->round_ns);
    int64_t prepare_ns = between(at->sent_ns, at->prepared_ns), start_ns = between(at->go_ns, at->running_ns);
    out->ns[PAUSE_STOP] = between(at->requested_ns, at->stopped_ns);
    out->ns[PAUSE_DRAIN] = between(at->stopped_ns, at->drained_ns);
    out->ns[PAUSE_DISKS] = between(at->drained_ns, at->flushed_ns);
    out->ns[PAUSE_HARVEST] = cut(at->harvest_ns, ram_ns);
    out->ns[PAUSE_RAM] = ram_ns - out->ns[PAUSE_HARVEST];
    out->ns[PAUSE_DEVICES] = between(at->round_ns, at->sent_ns);
    out->ns[PAUSE_LOAD] = cut(told->load_ns, prepare_ns);
    out->ns[PAUSE_ARRIVE] = cut(told->arrive_ns, prepare_ns - out->ns[PAUSE_LOAD]);
    out->ns[PAUSE_RELEASE] = between(at->prepared_ns, at->go_ns);
    out->ns[PAUSE_START] = cut(told->start_ns, start_ns);
    out->ns[PAUSE_TRIPS] = prepare_ns - out->ns[PAUSE_LOAD] - out->ns[PAUSE_ARRIVE] + start_ns - out->ns[PAUSE_START];
}

int64_t pause_sum_ns(const struct pause_parts *parts)
{
    int64_t sum_ns = 0;
    for (unsigned i = 0; i < PAUSE_PARTS; i++)
        sum_ns += parts->ns[i];
    return sum_ns;
}

/* --- two clocks ----------------------------------------------------------------------------------------- */

/* Times come from a peer, too: differences of any two must not overflow. */
static int64_t minus(int64_t a, int64_t b)
{
    int64_t difference;
    if (__builtin_sub_overflow(a, b, &difference))
        return a > b ? INT64_MAX : INT64_MIN;
    return difference;
}

static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return a > 0 ? INT64_MAX : INT64_MIN;
    return sum;
}

void clock_sent(struct clock_bounds *bounds, int64_t here_ns, int64_t there_ns)
{
    int64_t ns = minus(here_ns, there_ns);
    if (here_ns <= 0 || there_ns <= 0)
        return;
    if (!bounds->has_low || ns > bounds->low_ns)
        bounds->low_ns = ns;
    bounds->has_low = true;
}

void clock_heard(struct clock_bounds *bounds, int64_t here_ns, int64_t there_ns)
{
    int64_t ns = minus(here_ns, there_ns);
    if (here_ns <= 0 || there_ns <= 0)
        return;
    if (!bounds->has_high || ns < bounds->high_ns)
        bounds->high_ns = ns;
    bounds->has_high = true;
}

void clock_same(struct clock_bounds *bounds)
{
    if (bounds->has_low && bounds->has_high && bounds->low_ns <= 0 && bounds->high_ns >= 0)
        bounds->low_ns = bounds->high_ns = 0;
}

bool clock_between(const struct clock_bounds *bounds, int64_t from_here_ns, int64_t to_there_ns, struct duration *out)
{
    if (!bounds->has_low || !bounds->has_high || bounds->low_ns > bounds->high_ns || from_here_ns <= 0 ||
        to_there_ns <= 0)
        return false;
    int64_t apart_ns = minus(to_there_ns, from_here_ns);
    out->low_ns = plus(apart_ns, bounds->low_ns);
    out->high_ns = plus(apart_ns, bounds->high_ns);
    out->low_ns = out->low_ns > 0 ? out->low_ns : 0;
    out->high_ns = out->high_ns > 0 ? out->high_ns : 0;
    return true;
}

/* --- rounds --------------------------------------------------------------------------------------------- */

static void join(struct report_round *to, const struct report_round *next)
{
    to->last = next->last;
    to->units_scanned += next->units_scanned;
    to->units_data += next->units_data;
    to->units_zero += next->units_zero;
    to->units_delta += next->units_delta;
    to->wire_bytes += next->wire_bytes;
    to->elapsed_ns += next->elapsed_ns;
    to->units_dirty = next->units_dirty;
    to->predicted_ns = next->predicted_ns;
    to->got_ns = next->got_ns ? next->got_ns : to->got_ns;
}

void report_add_round(struct report_rounds *rounds, const struct report_round *round)
{
    enum { OLDER = REPORT_ROUNDS_MAX / 2 };
    if (rounds->rows == REPORT_ROUNDS_MAX) {
        for (unsigned i = 0; i < OLDER / 2; i++) {
            struct report_round pair = rounds->row[2 * i];
            join(&pair, &rounds->row[2 * i + 1]);
            rounds->row[i] = pair;
        }
        memmove(&rounds->row[OLDER / 2], &rounds->row[OLDER], (REPORT_ROUNDS_MAX - OLDER) * sizeof(rounds->row[0]));
        rounds->rows -= OLDER / 2;
    }
    rounds->row[rounds->rows++] = *round;
}

struct report_round report_sum(const struct report_rounds *rounds)
{
    struct report_round sum = { 0 };
    for (unsigned i = 0; i < rounds->rows; i++) {
        if (i == 0)
            sum = rounds->row[0];
        else
            join(&sum, &rounds->row[i]);
    }
    return sum;
}

/* --- work ----------------------------------------------------------------------------------------------- */

double guest_work_per(const struct guest_work *work, int64_t now_ns)
{
    return work->elapsed_ns > 0 && now_ns > 0 ? (double)work->instructions * ((double)now_ns / (double)work->elapsed_ns)
                                              : 0;
}

/* --- what the destination tells ------------------------------------------------------------------------- */

void report_add_device(struct report_devices *devices, const char *name, uint32_t instance, int64_t ns)
{
    if (devices->count == REPORT_DEVICES_MAX)
        return;
    struct report_device *device = &devices->device[devices->count++];
    size_t bytes = strnlen(name, sizeof(device->name) - 1);
    memcpy(device->name, name, bytes);
    device->name[bytes] = '\0';
    device->instance = instance;
    device->ns = ns;
}

void report_arrival_encode(const struct report_arrival *arrival, struct buf *out)
{
    const int64_t times[] = { arrival->stopped_ns, arrival->eof_ns, arrival->prepared_ns, arrival->go_ns,
                              arrival->told_ns };
    buf_put(out, arrival->host, sizeof(arrival->host));
    for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        buf_put_be64(out, (uint64_t)times[i]);
    buf_put_be32(out, arrival->harts);
    for (unsigned i = 0; i < arrival->harts; i++)
        buf_put_be64(out, (uint64_t)arrival->resumed_ns[i]);
    buf_put_be64(out, (uint64_t)arrival->after.elapsed_ns);
    buf_put_be64(out, arrival->after.instructions);
    buf_put_be64(out, (uint64_t)arrival->after.cpu_ns);
    buf_put_be32(out, arrival->devices.count);
    for (unsigned i = 0; i < arrival->devices.count; i++) {
        const struct report_device *device = &arrival->devices.device[i];
        size_t bytes = strnlen(device->name, REPORT_NAME_BYTES - 1);
        buf_put_u8(out, (uint8_t)bytes);
        buf_put(out, device->name, bytes);
        buf_put_be32(out, device->instance);
        buf_put_be64(out, (uint64_t)device->ns);
    }
}

/* A time or a duration of somebody else's: not below 0, and so far from the end that sums of many fit. */
static int64_t take_ns(struct reader *in)
{
    uint64_t ns = reader_be64(in);
    if (ns > INT64_MAX / 256)
        in->failed = true;
    return in->failed ? 0 : (int64_t)ns;
}

static void take_device(struct reader *in, struct report_devices *devices)
{
    char raw[REPORT_NAME_BYTES], name[4 * REPORT_NAME_BYTES];
    uint8_t bytes = reader_u8(in);
    const uint8_t *from = bytes < REPORT_NAME_BYTES ? reader_take(in, bytes) : NULL;
    if (!from) {
        in->failed = true;
        return;
    }
    memcpy(raw, from, bytes);
    err_printable(raw, bytes, name, sizeof(name));
    uint32_t instance = reader_be32(in);
    report_add_device(devices, name, instance, take_ns(in));
}

int report_arrival_decode(struct reader *in, struct report_arrival *out)
{
    int64_t *const times[] = { &out->stopped_ns, &out->eof_ns, &out->prepared_ns, &out->go_ns, &out->told_ns };
    memset(out, 0, sizeof(*out));
    const uint8_t *host = reader_take(in, sizeof(out->host));
    if (!host)
        return -EPROTO;
    memcpy(out->host, host, sizeof(out->host));
    for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        *times[i] = take_ns(in);
    uint32_t harts = reader_be32(in);
    if (in->failed || harts > REPORT_HARTS_MAX)
        return -EPROTO;
    out->harts = harts;
    for (unsigned i = 0; i < harts; i++)
        out->resumed_ns[i] = take_ns(in);
    out->after.elapsed_ns = take_ns(in);
    out->after.instructions = reader_be64(in);
    out->after.cpu_ns = take_ns(in);
    uint32_t devices = reader_be32(in);
    if (in->failed || devices > REPORT_DEVICES_MAX)
        return -EPROTO;
    for (unsigned i = 0; i < devices && !in->failed; i++)
        take_device(in, &out->devices);
    return in->failed ? -EPROTO : 0;
}

int64_t report_first_resumed_ns(const struct report_arrival *arrival)
{
    int64_t first_ns = 0;
    for (unsigned i = 0; i < arrival->harts; i++)
        if (arrival->resumed_ns[i] > 0 && (first_ns == 0 || arrival->resumed_ns[i] < first_ns))
            first_ns = arrival->resumed_ns[i];
    return first_ns;
}

void report_gap(const struct clock_bounds *bounds, const int64_t *paused_ns, unsigned harts,
                const struct report_arrival *arrival, struct guest_gap *out)
{
    int64_t last_ns = 0, first_ns = report_first_resumed_ns(arrival);
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < harts && i < arrival->harts; i++) {
        struct duration one;
        last_ns = paused_ns[i] > last_ns ? paused_ns[i] : last_ns;
        if (clock_between(bounds, paused_ns[i], arrival->resumed_ns[i], &one) && one.high_ns >= out->longest.high_ns) {
            out->longest = one;
            out->hart = i;
        }
    }
    out->known = clock_between(bounds, last_ns, first_ns, &out->all);
}

struct arrival_parts report_arrival_parts(const struct report_arrival *arrival)
{
    int64_t first_ns = report_first_resumed_ns(arrival);
    return (struct arrival_parts){
        .seen_ns = between(arrival->stopped_ns, first_ns),
        .receive_ns = between(arrival->stopped_ns, arrival->eof_ns),
        .load_ns = between(arrival->eof_ns, arrival->prepared_ns),
        .wait_ns = between(arrival->prepared_ns, arrival->go_ns),
        .start_ns = between(arrival->go_ns, first_ns),
    };
}
