/* goldfish RTC: nanoseconds of the host's CLOCK_REALTIME plus what the guest set, and one alarm.
 *
 * It goes on while the machine is paused: this is where a guest can see how long it was away. The alarm's timer
 * runs on the guest's clock, so it is set again from the RTC's own time at every resume. */
#include <errno.h>
#include <stdlib.h>

#include "hw/devices.h"

enum { RTC_BYTES = 0x1000 };
enum {
    REG_TIME_LOW = 0x00, /* read: latches the high half */
    REG_TIME_HIGH = 0x04,
    REG_ALARM_LOW = 0x08, /* write: arms */
    REG_ALARM_HIGH = 0x0c,
    REG_IRQ_ENABLED = 0x10,
    REG_CLEAR_ALARM = 0x14,
    REG_ALARM_STATUS = 0x18,
    REG_CLEAR_INTERRUPT = 0x1c,
};

struct rtc_state {
    uint64_t offset_ns; /* RTC = CLOCK_REALTIME + offset, modulo 2^64 */
    uint64_t alarm_ns;
    uint32_t time_high; /* latched */
    uint8_t alarm_running, irq_pending, irq_enabled;
    uint8_t spare;
};

struct rtc {
    struct device dev;
    /* fixed after new */
    struct irq_line irq;
    struct timers *timers;
    struct timer *alarm;
    /* under dev.lock */
    struct rtc_state state;
    bool drained;
};

/* clang-format off */
static const struct field rtc_fields[] = {
    FIELD_U64_OF(struct rtc_state, offset_ns),
    FIELD_U64_OF(struct rtc_state, alarm_ns),
    FIELD_U32_OF(struct rtc_state, time_high),
    FIELD_BOOL_OF(struct rtc_state, alarm_running),
    FIELD_BOOL_OF(struct rtc_state, irq_pending),
    FIELD_BOOL_OF(struct rtc_state, irq_enabled),
    FIELD_DERIVED_OF(struct rtc_state, spare),
    FIELD_TABLE_END,
};
/* clang-format on */

static const struct state_desc rtc_desc = {
    .name = "godwit/rtc",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct rtc_state),
    .fields = rtc_fields,
};

static uint64_t rtc_now_ns(const struct rtc_state *s)
{
    return (uint64_t)clock_realtime_ns() + s->offset_ns;
}

static void update_irq(struct rtc *r)
{
    irq_set(&r->irq, r->state.irq_pending && r->state.irq_enabled);
}

/* Guest time at which the alarm is due; TIMER_NEVER when it is off or too far away to say. */
static int64_t alarm_deadline_ns(const struct rtc *r, uint64_t now_ns)
{
    const struct rtc_state *s = &r->state;
    if (!s->alarm_running)
        return TIMER_NEVER;
    int64_t guest_ns = timers_now_ns(r->timers);
    uint64_t ahead_ns = s->alarm_ns > now_ns ? s->alarm_ns - now_ns : 0;
    return ahead_ns < (uint64_t)(TIMER_NEVER - guest_ns) ? guest_ns + (int64_t)ahead_ns : TIMER_NEVER;
}

/* Fire the alarm when its time has come, else be woken when it has. */
static void update_alarm(struct rtc *r)
{
    struct rtc_state *s = &r->state;
    uint64_t now_ns = rtc_now_ns(s);
    if (s->alarm_running && s->alarm_ns <= now_ns) {
        s->alarm_running = 0;
        s->irq_pending = 1;
    }
    timer_set_ns(r->alarm, alarm_deadline_ns(r, now_ns));
    update_irq(r);
}

static void alarm_fired(void *opaque)
{
    struct rtc *r = opaque;
    lock(&r->dev.lock);
    if (!r->drained) /* else resume looks again */
        update_alarm(r);
    unlock(&r->dev.lock);
}

static uint32_t read_register(struct rtc_state *s, uint64_t offset)
{
    uint64_t now_ns;
    switch (offset) {
    case REG_TIME_LOW:
        now_ns = rtc_now_ns(s);
        s->time_high = (uint32_t)(now_ns >> 32);
        return (uint32_t)now_ns;
    case REG_TIME_HIGH: return s->time_high;
    case REG_ALARM_LOW: return (uint32_t)s->alarm_ns;
    case REG_ALARM_HIGH: return (uint32_t)(s->alarm_ns >> 32);
    case REG_IRQ_ENABLED: return s->irq_enabled;
    case REG_ALARM_STATUS: return s->alarm_running;
    default: return 0;
    }
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    struct rtc *r = opaque;
    lock(&r->dev.lock);
    uint32_t value = read_register(&r->state, offset);
    unlock(&r->dev.lock);
    return value;
}

static void set_time(struct rtc_state *s, uint64_t mask, uint64_t bits)
{
    uint64_t now_ns = rtc_now_ns(s);
    s->offset_ns += ((now_ns & ~mask) | bits) - now_ns;
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t wide, unsigned size)
{
    (void)size;
    struct rtc *r = opaque;
    struct rtc_state *s = &r->state;
    uint64_t value = (uint32_t)wide, low = UINT32_MAX;
    lock(&r->dev.lock);
    switch (offset) {
    case REG_TIME_LOW: set_time(s, low, value); break;
    case REG_TIME_HIGH: set_time(s, ~low, value << 32); break;
    case REG_ALARM_LOW:
        s->alarm_ns = (s->alarm_ns & ~low) | value;
        s->alarm_running = 1;
        break;
    case REG_ALARM_HIGH: s->alarm_ns = (s->alarm_ns & low) | value << 32; break;
    case REG_IRQ_ENABLED: s->irq_enabled = value & 1; break;
    case REG_CLEAR_ALARM: s->alarm_running = 0; break;
    case REG_CLEAR_INTERRUPT: s->irq_pending = 0; break;
    default: break;
    }
    update_alarm(r);
    unlock(&r->dev.lock);
}

static void *rtc_state_object(struct device *dev)
{
    return &((struct rtc *)dev)->state;
}

static void rtc_reset(struct device *dev)
{
    struct rtc *r = (struct rtc *)dev;
    lock(&dev->lock);
    /* The time that the guest set survives a reset, as on a board with a battery. */
    r->state = (struct rtc_state){ .offset_ns = r->state.offset_ns };
    update_alarm(r);
    unlock(&dev->lock);
}

static void rtc_loaded(struct device *dev)
{
    struct rtc *r = (struct rtc *)dev;
    lock(&dev->lock);
    /* The registers stay as they were loaded; an alarm that came due on the way fires once the clock runs. */
    timer_set_ns(r->alarm, alarm_deadline_ns(r, rtc_now_ns(&r->state)));
    update_irq(r);
    unlock(&dev->lock);
}

static void rtc_drain(struct device *dev)
{
    struct rtc *r = (struct rtc *)dev;
    lock(&dev->lock);
    r->drained = true;
    unlock(&dev->lock);
}

static void rtc_resume(struct device *dev)
{
    struct rtc *r = (struct rtc *)dev;
    lock(&dev->lock);
    r->drained = false;
    update_alarm(r);
    unlock(&dev->lock);
}

static void rtc_free(struct device *dev)
{
    struct rtc *r = (struct rtc *)dev;
    timer_free(r->alarm);
    lock_destroy(&dev->lock);
    free(r);
}

static const struct bus_ops rtc_bus = { .read = rtc_read, .write = rtc_write, .min_bytes = 4, .max_bytes = 4 };

static const struct device_ops rtc_ops = {
    .name = "google,goldfish-rtc",
    .state = &rtc_desc,
    .bus = &rtc_bus,
    .state_object = rtc_state_object,
    .reset = rtc_reset,
    .loaded = rtc_loaded,
    .drain = rtc_drain,
    .resume = rtc_resume,
    .free = rtc_free,
};

struct device *rtc_new(struct irq_line irq, struct timers *timers, struct err *err)
{
    struct rtc *r = calloc(1, sizeof(*r));
    if (!r) {
        err_set(err, -ENOMEM, "no memory for the RTC");
        return NULL;
    }
    device_init(&r->dev, &rtc_ops, LOCK_DEVICE);
    r->dev.bytes = RTC_BYTES;
    r->irq = irq;
    r->timers = timers;
    r->alarm = timer_new(timers, alarm_fired, r);
    return &r->dev;
}
