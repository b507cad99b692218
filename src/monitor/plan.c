#include "monitor/plan.h"

#include <inttypes.h>
#include <math.h>

#include "base/json.h"

enum { SENTENCE_MAX = 300 };

static double pages_mib(double pages)
{
    return pages * PAGE_BYTES / (1 << 20);
}

static struct json_object *band(const struct forecast_band *value)
{
    struct json_object *object = json_object_new_object();
    json_put_num(object, "p50", value->p50);
    json_put_num(object, "p90", value->p90);
    return object;
}

/* --- advice --------------------------------------------------------------------------------------------------- */

static const char *const change_names[] = { [CHANGE_CODEC] = "compression",
                                            [CHANGE_CAP] = "max-bandwidth",
                                            [CHANGE_LINK] = "link",
                                            [CHANGE_LIMIT] = "downtime-limit",
                                            [CHANGE_QUOTA] = "auto-converge" };

static void advice_text(const struct forecast_advice *advice, char *out, size_t size)
{
    switch (advice->change) {
    case CHANGE_CODEC: snprintf(out, size, "set compression to %s", advice->codec); break;
    case CHANGE_CAP:
        if (advice->value > 0)
            snprintf(out, size, "raise max-bandwidth to %.0fM", ceil(advice->value / (1 << 20)));
        else
            snprintf(out, size, "set max-bandwidth to 0, no cap");
        break;
    case CHANGE_LINK: snprintf(out, size, "a link that carries %.0f MB/s", advice->value / 1e6); break;
    case CHANGE_LIMIT: snprintf(out, size, "set downtime-limit to %.0f", advice->value); break;
    case CHANGE_QUOTA:
        snprintf(out, size,
                 "set auto-converge on and max-cpu-throttle to %.0f: holds mostly vCPU %u, which dirties %.0f pages/s "
                 "anew, and "
                 "leaves it %.0f %% of its work",
                 advice->value, advice->hart, advice->pages_per_s, advice->then.kept * 100);
        break;
    }
}

static struct json_object *advice_json(const struct forecast_advice *advice)
{
    struct json_object *object = json_object_new_object();
    char text[SENTENCE_MAX];
    advice_text(advice, text, sizeof(text));
    json_put_str(object, "change", change_names[advice->change]);
    if (advice->change == CHANGE_CODEC)
        json_put_str(object, "value", advice->codec);
    else
        json_put_num(object, "value", advice->value);
    if (advice->change == CHANGE_QUOTA)
        json_put_int(object, "cpu-index", advice->hart);
    json_put_num(object, "total-ms", advice->then.total_ms);
    json_put_num(object, "downtime-ms", advice->then.pause_ms);
    json_put_num(object, "work-kept", advice->then.kept);
    json_put_str(object, "text", text);
    return object;
}

/* --- all of it ------------------------------------------------------------------------------------------------- */

static struct json_object *measured(const struct plan_result *plan)
{
    struct json_object *object = json_object_new_object(), *curve = json_object_new_array(),
                       *shares = json_object_new_array();
    const struct forecast_input *in = &plan->in;
    for (unsigned i = 0; i < in->points; i++) {
        struct json_object *point = json_object_new_object();
        json_put_num(point, "ms", in->curve[i].ms);
        json_put_num(point, "pages", in->curve[i].pages);
        json_object_array_add(curve, point);
    }
    for (unsigned i = 0; i < in->harts; i++)
        json_object_array_add(shares, json_object_new_double(in->share[i]));
    json_put(object, "dirtied", curve);
    json_put(object, "vcpu-shares", shares);
    json_put_num(object, "pace-while-sending", plan->busy);
    json_put_num(object, "data-pages", in->data_pages);
    json_put_num(object, "zero-pages", in->zero_pages);
    json_put_num(object, "page-bytes-first", in->first.unit_bytes);
    json_put_num(object, "page-bytes-later", in->later.unit_bytes);
    json_put_num(object, "page-us-first", in->first.unit_ns / 1e3);
    json_put_num(object, "page-us-later", in->later.unit_ns / 1e3);
    json_put_num(object, "link-bytes-per-second", plan->link_bytes_per_s);
    json_put_num(object, "link-spread", in->spread);
    json_put_num(object, "round-trip-ms", in->round_ns / 1e6);
    json_put_num(object, "pause-ms", (double)in->real.pause_ns / 1e6);
    json_put_num(object, "device-ms", (double)in->real.device_ns / 1e6);
    json_put_num(object, "device-bytes", plan->device_bytes);
    json_put_num(object, "go-ms", (double)in->real.handover_ns / 1e6);
    json_put_num(object, "tried-pause-ms", plan->tried_pause_ms);
    json_put_num(object, "sampled-bytes", plan->sampled_bytes);
    return object;
}

struct json_object *plan_json(const struct plan_result *plan)
{
    struct json_object *object = json_object_new_object(), *list = json_object_new_array();
    const struct forecast *forecast = &plan->forecast;
    json_put_bool(object, "converges", forecast->ends);
    json_put_num(object, "probability", forecast->ends_of);
    json_put_str(object, "reason", forecast->reason);
    json_put_num(object, "downtime-limit-ms", (double)plan->in.policy.downtime_limit_ns / 1e6);
    json_put(object, "total-ms", band(&forecast->total_ms));
    json_put(object, "downtime-ms", band(&forecast->pause_ms));
    json_put(object, "wire-bytes", band(&forecast->wire_bytes));
    json_put_int(object, "rounds", forecast->rounds);
    for (unsigned i = 0; i < plan->advices; i++)
        json_object_array_add(list, advice_json(&plan->advice[i]));
    json_put(object, "advice", list);
    json_put(object, "measured", measured(plan));
    return object;
}

static void print_measured(struct json_object *in, FILE *out)
{
    struct json_object *curve = json_get(in, "dirtied"), *shares = json_get(in, "vcpu-shares");
    size_t points = json_object_array_length(curve);
    fprintf(out, "memory: %.0f MiB of data, %.0f MiB of zeroes\n", pages_mib(json_get_num(in, "data-pages")),
            pages_mib(json_get_num(in, "zero-pages")));
    fprintf(out, points ? "dirtied within" : "dirtied: nothing, the guest does not run");
    for (size_t i = 0; i < points; i++) {
        struct json_object *point = json_object_array_get_idx(curve, i);
        fprintf(out, "%s %.0f ms %.1f MiB", i ? "," : "", json_get_num(point, "ms"),
                pages_mib(json_get_num(point, "pages")));
    }
    fprintf(out, "\n");
    for (size_t i = 0; points && i < json_object_array_length(shares); i++)
        fprintf(out, "%s vcpu %zu %.0f %%", i ? "," : "by", i,
                json_object_get_double(json_object_array_get_idx(shares, i)) * 100);
    fprintf(out, points ? "\n" : "");
    fprintf(out,
            "a page: %.0f bytes on the wire, %.0f of one that was just dirtied; the link loads %.1f MB/s, +-%.0f %%, "
            "an empty "
            "round takes %.1f ms\n",
            json_get_num(in, "page-bytes-first"), json_get_num(in, "page-bytes-later"),
            json_get_num(in, "link-bytes-per-second") / 1e6, json_get_num(in, "link-spread") * 100,
            json_get_num(in, "round-trip-ms"));
    fprintf(out, "a pause: %.1f ms stopping, %.1f ms devices, %.1f ms go", json_get_num(in, "pause-ms"),
            json_get_num(in, "device-ms"), json_get_num(in, "go-ms"));
    if (json_get_num(in, "tried-pause-ms") > 0)
        fprintf(out, "; tried for %.1f ms", json_get_num(in, "tried-pause-ms"));
    fprintf(out, "\n");
}

void plan_print(struct json_object *plan, FILE *out)
{
    struct json_object *total = json_get(plan, "total-ms"), *pause = json_get(plan, "downtime-ms"),
                       *wire = json_get(plan, "wire-bytes"), *list = json_get(plan, "advice");
    double sure = json_get_num(plan, "probability");
    print_measured(json_get(plan, "measured"), out);
    if (sure > 0)
        fprintf(out,
                "%s: total %.1f s (p90 %.1f s), downtime %.1f ms (p90 %.1f ms, limit %.0f ms), %.0f MiB on the wire, "
                "%" PRId64 " rounds\n",
                json_get_bool(plan, "converges") ? "it will end" : "it may end", json_get_num(total, "p50") / 1e3,
                json_get_num(total, "p90") / 1e3, json_get_num(pause, "p50"), json_get_num(pause, "p90"),
                json_get_num(plan, "downtime-limit-ms"), json_get_num(wire, "p50") / (1 << 20),
                json_get_int(plan, "rounds"));
    if (json_get_bool(plan, "converges"))
        return;
    fprintf(out, "%s: %s\n", sure > 0 ? "or not" : "it will not end", json_get_str(plan, "reason"));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *advice = json_object_array_get_idx(list, i);
        fprintf(out, "%s %s: then %.1f s, downtime %.1f ms\n",
                i ? "or:" : "what would help:", json_get_str(advice, "text"), json_get_num(advice, "total-ms") / 1e3,
                json_get_num(advice, "downtime-ms"));
    }
    if (json_object_array_length(list) == 0)
        fprintf(out, "nothing that godwit can change would help\n");
}
