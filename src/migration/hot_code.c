#include "migration/hot_code.h"

#include <errno.h>
#include <string.h>

#include "machine/warm.h"

/* Watched as long as the round lasts anyway, but within limits: a tick of a guest's kernel or two, and so early that the list is
 * there long before the guest. */
enum { HOT_CODE_VERSION = 1, WATCH_MIN_NS = 10 * 1000000, WATCH_MAX_NS = 30 * 1000000 };
static const char section_name[] = "godwit/hot-code";

int outgoing_hot_code(struct outgoing *o)
{
    bool wanted = atomic_load_explicit(&o->m->params.warm_arrival, memory_order_relaxed);
    if (o->hot_code_sent || !wanted || !o->peer_can_warm || machine_state(o->machine) != RUN_RUNNING)
        return 0;
    o->hot_code_sent = true;
    if (!machine_hot_begin(o->machine))
        return 0;
    int64_t began_ns = clock_now_ns();
    pipeline_round_wait(o->pipeline, began_ns + WATCH_MAX_NS); /* a failure shows at the round's end */
    int rc = outgoing_wait(o, began_ns + WATCH_MIN_NS - clock_now_ns());
    if (rc < 0)
        return rc;
    struct section_writer writer = { .next_id = o->next_id };
    struct buf list = { 0 };
    machine_hot_put(o->machine, &list);
    sections_put_plain(&writer, section_name, HOT_CODE_VERSION, list.data, list.size);
    rc = pipeline_send(o->pipeline, writer.out.data, writer.out.size, &o->err);
    o->next_id = writer.next_id;
    buf_free(&list);
    sections_writer_free(&writer);
    return rc;
}

bool incoming_is_hot_code(const struct section_head *head)
{
    return strcmp(head->name, section_name) == 0;
}

int incoming_hot_code(struct incoming *i, const struct section_head *head)
{
    if (head->instance != 0 || head->version != HOT_CODE_VERSION)
        return err_set(&i->err, -EPROTO, "section %s: instance %u of version %u, understood is 0 of %d", head->name,
                       head->instance, head->version, HOT_CODE_VERSION);
    if (i->hot_code_seen)
        return err_set(&i->err, -EPROTO, "section %s: it came twice", head->name);
    i->hot_code_seen = true;
    struct buf list = { 0 };
    int rc = sections_read_plain(i->channel, head, WARM_BYTES_MAX, &list, &i->err);
    if (rc == 0)
        rc = machine_warm_take(i->machine, list.data, list.size, &i->err);
    buf_free(&list);
    return rc;
}
