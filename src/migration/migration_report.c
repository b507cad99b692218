/* What a migration has cost: what the migrate thread wrote down, and what counters say now. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "migration/internal.h"
#include "migration/sources.h"

/* One boot of one kernel, and one namespace of time in it. */
void migration_host_id(uint8_t id[REPORT_HOST_BYTES])
{
    char text[128] = "", space[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, 64) : -1;
    if (fd >= 0)
        close(fd);
    if (bytes <= 0 || readlink("/proc/self/ns/time", space, sizeof(space) - 1) < 0)
        return;
    strcat(text, space);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(text, strlen(text)));
    memcpy(id, canonical.digest, REPORT_HOST_BYTES);
}

/* In the first round nothing is known but the pace of what is looked at. */
static struct eta forecast_outgoing(struct migration *m, int64_t now_ns)
{
    struct eta_model model = m->eta;
    if (m->pipeline)
        pipeline_stats(m->pipeline, &m->sent);
    uint64_t taken = m->sent.units_taken - m->round.taken;
    struct eta_position at = {
        .left_units = m->round.units > taken ? (double)(m->round.units - taken) : 0,
        .elapsed_ns = m->round.start_ns ? (double)(now_ns - m->round.start_ns) : 0,
    };
    if (model.points == 0 && taken > 0)
        model.unit_ns = at.elapsed_ns / (double)taken;
    return eta_forecast(&model, &at);
}

static struct eta forecast_incoming(struct migration *m, int64_t now_ns)
{
    if (m->loader)
        loader_stats(m->loader, &m->got);
    uint64_t come = m->got.units_data + m->got.units_zero, all = source_ram_bytes(m->ram) / m->ram->unit_bytes;
    struct eta eta = { .reason = "only the source sees what the guest dirties" };
    if (m->active_ns && come > 0 && come < all && m->got.rounds == 0)
        eta.round_ns = (int64_t)((double)(all - come) * (double)(now_ns - m->active_ns) / (double)come);
    return eta;
}

void migration_report(struct migration *m, struct migration_report *out)
{
    lock(&m->lock);
    *out = m->report;
    int64_t now_ns = m->end_ns ? m->end_ns : clock_now_ns();
    if (!out->copying_ns && m->active_ns)
        out->copying_ns = now_ns - m->active_ns;
    out->harts = m->incoming ? 0 : machine_harts(m->machine);
    for (unsigned i = 0; i < out->harts; i++)
        vcpu_stalls(machine_vcpu(m->machine, i), m->counting, &out->stall[i]);
    if (m->pipeline)
        pipeline_stats(m->pipeline, &m->sent);
    uint64_t in_rounds = report_sum(&out->rounds).wire_bytes;
    out->other_wire_bytes = m->sent.wire_bytes > in_rounds ? m->sent.wire_bytes - in_rounds : 0;
    out->eta = m->incoming ? forecast_incoming(m, now_ns) : forecast_outgoing(m, now_ns);
    unlock(&m->lock);
}
