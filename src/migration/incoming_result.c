/* What the destination measures of the move, and tells the source when it knows: some 100 ms after the guest went on, when all is
 * decided. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "migration/incoming.h"

enum { FIRST_MS = 100 };

static struct guest_work work_so_far(struct incoming *i)
{
    struct guest_work work = { .elapsed_ns = clock_now_ns() };
    for (unsigned hart = 0; hart < machine_harts(i->machine); hart++) {
        struct vcpu_stats stats;
        vcpu_stats(machine_vcpu(i->machine, hart), &stats);
        work.instructions += stats.instructions;
        work.cpu_ns += stats.cpu_ns;
    }
    return work;
}

void incoming_result_begin(struct incoming *i)
{
    i->work_before = work_so_far(i);
    i->measure_at_ns = clock_now_ns() + FIRST_MS * NS_PER_MS;
}

void incoming_result_reset(struct incoming *i)
{
    memset(&i->arrival, 0, sizeof(i->arrival));
    i->measure_at_ns = 0;
}

static void note_harts(struct incoming *i)
{
    i->arrival.harts = machine_harts(i->machine);
    for (unsigned hart = 0; hart < i->arrival.harts; hart++) {
        struct vcpu_stats stats;
        vcpu_stats(machine_vcpu(i->machine, hart), &stats);
        i->arrival.resumed_ns[hart] = stats.resumed_ns >= i->arrival.go_ns ? stats.resumed_ns : 0;
    }
}

static void note_devices(struct incoming *i)
{
    const struct section_collector *collector = i->collector;
    i->arrival.devices.count = 0;
    for (unsigned s = 0; s < collector->sections; s++)
        if (collector->load_ns[s])
            report_add_device(&i->arrival.devices, collector->section[s].desc->name, collector->section[s].instance,
                              collector->load_ns[s]);
}

/* Unless somebody wants this thread back before. */
static void wait_for_the_end_of_it(struct incoming *i)
{
    struct pollfd pfd = { .fd = i->m->abort_fd, .events = POLLIN };
    int64_t left_ns;
    while ((left_ns = i->measure_at_ns - clock_now_ns()) > 0) {
        int ready = poll(&pfd, 1, (int)(left_ns / NS_PER_MS + 1));
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return;
    }
}

static void tell(struct incoming *i)
{
    struct buf payload = { 0 }, out = { 0 };
    report_arrival_encode(&i->arrival, &payload);
    message_put(&out, MESSAGE_RESULT, &i->key, payload.data, (uint32_t)payload.size);
    channel_write_all(i->line, out.data, out.size, incoming_timeout_ms(i), NULL); /* lost: a figure less */
    buf_free(&payload);
    buf_free(&out);
}

void incoming_result(struct incoming *i)
{
    struct migration *m = i->m;
    if (i->at != TARGET_RUNS) /* it was refused, or is still in doubt */
        i->measure_at_ns = 0;
    if (!i->measure_at_ns)
        return;
    wait_for_the_end_of_it(i);
    struct guest_work now = work_so_far(i);
    i->measure_at_ns = 0;
    note_harts(i);
    note_devices(i);
    int64_t first_ns = report_first_resumed_ns(&i->arrival);
    if (first_ns)
        i->arrival.after = (struct guest_work){
            .elapsed_ns = now.elapsed_ns > first_ns ? now.elapsed_ns - first_ns : 0,
            .instructions = now.instructions - i->work_before.instructions,
            .cpu_ns = now.cpu_ns - i->work_before.cpu_ns,
        };
    memcpy(i->arrival.host, m->host, sizeof(m->host));
    lock(&m->lock);
    m->report.arrival = i->arrival;
    m->report.arrival_known = true;
    m->report.arrival_due = false;
    unlock(&m->lock);
    if (i->peer_hears_result && !i->one_way && i->line)
        tell(i);
}
