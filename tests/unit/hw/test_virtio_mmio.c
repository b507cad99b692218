#include "tests/unit/hw/guest_ring.h"

#include "hw/virtio.h"

/* A backend that only counts: the transport is what is tested. */
enum { QUEUES = 2, SIZE = 16 };
#define OWN_FEATURE (UINT64_C(1) << 3)
#define WANTED      (OWN_FEATURE | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC)

struct probe_state {
    struct virtio_state virtio;
};

struct probe {
    struct virtio_backend backend;
    struct probe_state state;
    uint8_t config[8];
    unsigned notified[QUEUES], resets, resumes, drains;
};

static const struct virtio_backend_ops probe_ops;
static const struct field probe_fields[] = { VIRTIO_STATE_ROW(struct probe_state), FIELD_TABLE_END };

static int probe_validate(const void *object, struct err *err)
{
    return virtio_validate(&probe_ops, object, err);
}

static const struct state_desc probe_desc = { "godwit/virtio-probe", 1, 1, sizeof(struct probe_state), probe_fields,
                                              probe_validate };

static uint32_t probe_config_read(struct virtio_backend *backend, unsigned offset, unsigned size)
{
    uint32_t value = 0;
    memcpy(&value, ((struct probe *)backend)->config + offset, size);
    return value;
}

static void probe_config_write(struct virtio_backend *backend, unsigned offset, uint32_t value, unsigned size)
{
    memcpy(((struct probe *)backend)->config + offset, &value, size);
}

static void probe_notify(struct virtio_backend *backend, unsigned queue)
{
    ((struct probe *)backend)->notified[queue]++;
}

static void probe_reset(struct virtio_backend *backend)
{
    ((struct probe *)backend)->resets++;
}

static void probe_drain(struct virtio_backend *backend)
{
    ((struct probe *)backend)->drains++;
}

static void probe_resume(struct virtio_backend *backend)
{
    ((struct probe *)backend)->resumes++;
}

static void probe_free(struct virtio_backend *backend)
{
    free(backend);
}

static const struct virtio_backend_ops probe_ops = {
    .name = "probe",
    .device_id = 42,
    .features = OWN_FEATURE,
    .queues = QUEUES,
    .queue_size_max = SIZE,
    .config_bytes = 8,
    .state = &probe_desc,
    .config_read = probe_config_read,
    .config_write = probe_config_write,
    .notify = probe_notify,
    .reset = probe_reset,
    .drain = probe_drain,
    .resume = probe_resume,
    .free = probe_free,
};

struct world {
    struct pins pins;
    struct ram *ram;
    struct probe *probe;
    struct device *dev;
    struct guest_ring ring[QUEUES];
};

static struct device *make(struct world *w, struct probe **probe, unsigned pin_number, bool legacy)
{
    *probe = calloc(1, sizeof(**probe));
    (*probe)->backend.ops = &probe_ops;
    (*probe)->backend.state = &(*probe)->state.virtio;
    struct device *dev = virtio_mmio_new(3, w->ram, pin(&w->pins, pin_number), &(*probe)->backend, legacy, NULL);
    assert_non_null(dev);
    return dev;
}

static int begin(void **state, bool legacy)
{
    struct world *w = calloc(1, sizeof(*w));
    pins_init(&w->pins);
    w->ram = guest_ram();
    w->dev = make(w, &w->probe, 0, legacy);
    for (unsigned i = 0; i < QUEUES; i++)
        w->ring[i] = guest_ring(w->ram, i, SIZE);
    *state = w;
    return 0;
}

static int setup_modern(void **state)
{
    return begin(state, false);
}

static int setup_legacy(void **state)
{
    return begin(state, true);
}

static int teardown(void **state)
{
    struct world *w = *state;
    dev_free(w->dev);
    ram_free(w->ram);
    free(w);
    return 0;
}

static void bring_up(struct world *w)
{
    driver_begin(w->dev, WANTED);
    assert_int_equal(mmio_get(w->dev, 0x070), 11);
    for (unsigned i = 0; i < QUEUES; i++)
        driver_set_queue(w->dev, i, &w->ring[i]);
    driver_ready(w->dev);
}

static void an_empty_slot_has_no_device(void **state)
{
    (void)state;
    struct device *dev = virtio_mmio_new(0, NULL, (struct irq_line){ 0 }, NULL, true, NULL);
    assert_int_equal(mmio_get(dev, 0x000), 0x74726976);
    assert_int_equal(mmio_get(dev, 0x004), 1);
    assert_int_equal(mmio_get(dev, 0x008), 0);
    for (uint64_t at = 0; at < 0x1000; at += 4) {
        mmio_put(dev, at, UINT32_MAX);
        mmio_get(dev, at);
    }
    assert_null(dev->ops->state);
    dev->ops->reset(dev);
    dev_free(dev);
}

static void a_modern_driver_comes_up(void **state)
{
    struct world *w = *state;
    assert_int_equal(mmio_get(w->dev, 0x004), 2);
    assert_int_equal(mmio_get(w->dev, 0x008), 42);
    mmio_put(w->dev, 0x014, 1);
    assert_int_equal(mmio_get(w->dev, 0x010), 1);
    mmio_put(w->dev, 0x014, 0);
    assert_int_equal(mmio_get(w->dev, 0x010), OWN_FEATURE | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
    mmio_put(w->dev, 0x030, 1);
    assert_int_equal(mmio_get(w->dev, 0x034), SIZE);
    mmio_put(w->dev, 0x030, 2);
    assert_int_equal(mmio_get(w->dev, 0x034), 0);
    bring_up(w);
    assert_int_equal(mmio_get(w->dev, 0x070), 15);
    assert_int_equal(mmio_get(w->dev, 0x044), 1);
    assert_int_equal(w->probe->notified[1], 1); /* once by itself when it became ready */
    driver_notify(w->dev, 1);
    assert_int_equal(w->probe->notified[1], 2);
    driver_notify(w->dev, QUEUES);
    driver_notify(w->dev, UINT32_MAX);
    assert_int_equal(w->probe->notified[0], 1);
    assert_true(virtio_running(&w->probe->backend));
}

static void features_that_do_not_exist_are_not_ok(void **state)
{
    struct world *w = *state;
    driver_begin(w->dev, WANTED | UINT64_C(1) << 40);
    assert_int_equal(mmio_get(w->dev, 0x070), 3);
    driver_ready(w->dev); /* it goes on all the same */
    assert_int_equal(mmio_get(w->dev, 0x070) & 12, 0);
    driver_begin(w->dev, OWN_FEATURE); /* modern without VERSION_1 */
    assert_int_equal(mmio_get(w->dev, 0x070), 3);
}

static void settled_features_stay_settled(void **state)
{
    struct world *w = *state;
    driver_begin(w->dev, WANTED);
    mmio_put(w->dev, 0x024, 0);
    mmio_put(w->dev, 0x020, UINT32_MAX);
    assert_int_equal(w->probe->state.virtio.driver_features, WANTED);
}

static void notifications_before_driver_ok_do_nothing(void **state)
{
    struct world *w = *state;
    driver_begin(w->dev, WANTED);
    driver_set_queue(w->dev, 0, &w->ring[0]);
    driver_notify(w->dev, 0);
    assert_int_equal(w->probe->notified[0], 0);
}

static void interrupts_stand_until_acknowledged(void **state)
{
    struct world *w = *state;
    bring_up(w);
    struct vring ring = virtio_ring(&w->probe->backend, 0);
    lock(&w->dev->lock);
    assert_true(vring_put(&ring, 0, 0));
    virtio_interrupt(&w->probe->backend, &ring);
    unlock(&w->dev->lock);
    assert_true(pin_high(&w->pins, 0));
    assert_int_equal(mmio_get(w->dev, 0x060), 1);
    mmio_put(w->dev, 0x064, 2);
    assert_true(pin_high(&w->pins, 0));
    mmio_put(w->dev, 0x064, 1);
    assert_false(pin_high(&w->pins, 0));
}

static void a_bad_ring_needs_reset_and_is_deaf_until_then(void **state)
{
    struct world *w = *state;
    bring_up(w);
    lock(&w->dev->lock);
    virtio_break(&w->probe->backend, "test");
    unlock(&w->dev->lock);
    assert_int_equal(mmio_get(w->dev, 0x070), 15 | 0x40);
    assert_true(pin_high(&w->pins, 0)); /* a configuration change */
    assert_int_equal(mmio_get(w->dev, 0x060), 2);
    driver_notify(w->dev, 0);
    assert_int_equal(w->probe->notified[0], 1);
    mmio_put(w->dev, 0x070, 15); /* no way around it but 0 */
    assert_int_equal(mmio_get(w->dev, 0x070), 15 | 0x40);
    mmio_put(w->dev, 0x070, 0);
    assert_int_equal(mmio_get(w->dev, 0x070), 0);
    assert_false(pin_high(&w->pins, 0));
    bring_up(w);
    driver_notify(w->dev, 0);
    assert_int_equal(w->probe->notified[0], 3);
}

static void queues_outside_ram_break_the_device(void **state)
{
    struct world *w = *state;
    driver_begin(w->dev, WANTED);
    struct guest_ring outside = w->ring[0];
    outside.used = UINT64_C(0xffffffffffff0000);
    driver_set_queue(w->dev, 0, &outside);
    assert_int_equal(mmio_get(w->dev, 0x044), 0);
    assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
}

static void impossible_queue_sizes_break_the_device(void **state)
{
    static const uint32_t sizes[] = { 0, 3, SIZE * 2, 0x10008, UINT32_MAX };
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        driver_begin(w->dev, WANTED);
        mmio_put(w->dev, 0x038, sizes[i]);
        assert_int_equal(mmio_get(w->dev, 0x070) & 0x40, 0x40);
        assert_int_equal(w->probe->state.virtio.queue[0].num, SIZE);
    }
}

static void a_live_queue_keeps_its_layout(void **state)
{
    struct world *w = *state;
    bring_up(w);
    mmio_put(w->dev, 0x030, 0);
    mmio_put(w->dev, 0x038, 4);
    mmio_put(w->dev, 0x080, 0);
    assert_int_equal(w->probe->state.virtio.queue[0].num, SIZE);
    assert_int_equal(w->probe->state.virtio.queue[0].desc, w->ring[0].desc);
    mmio_put(w->dev, 0x044, 0);
    assert_int_equal(mmio_get(w->dev, 0x044), 0);
}

static void configuration_is_read_in_any_width_and_no_further(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 8; i++)
        w->probe->config[i] = (uint8_t)(0x11 * (i + 1));
    assert_int_equal(dev_read(w->dev, 0x100, 4), 0x44332211);
    assert_int_equal(dev_read(w->dev, 0x106, 2), 0x8877);
    assert_int_equal(dev_read(w->dev, 0x107, 1), 0x88);
    assert_int_equal(dev_read(w->dev, 0x108, 4), 0);
    assert_int_equal(dev_read(w->dev, 0xffc, 4), 0);
    dev_write(w->dev, 0x104, 0xabcd, 2);
    assert_int_equal(dev_read(w->dev, 0x104, 4), 0x8877abcd);
    dev_write(w->dev, 0x108, 1, 4);
    assert_int_equal(dev_read(w->dev, 0x000, 2), 0); /* registers are words */
}

static void a_legacy_driver_comes_up(void **state)
{
    struct world *w = *state;
    assert_int_equal(mmio_get(w->dev, 0x004), 1);
    mmio_put(w->dev, 0x014, 1);
    assert_int_equal(mmio_get(w->dev, 0x010), 0);
    mmio_put(w->dev, 0x070, 3);
    mmio_put(w->dev, 0x020, UINT32_MAX);
    mmio_put(w->dev, 0x028, 4096);
    mmio_put(w->dev, 0x030, 1);
    assert_int_equal(mmio_get(w->dev, 0x040), 0);
    mmio_put(w->dev, 0x038, SIZE);
    mmio_put(w->dev, 0x03c, 4096);
    mmio_put(w->dev, 0x040, (uint32_t)(w->ring[1].desc / 4096));
    assert_int_equal(mmio_get(w->dev, 0x040), w->ring[1].desc / 4096);
    mmio_put(w->dev, 0x070, 7);
    const struct vring_state *q = &w->probe->state.virtio.queue[1];
    assert_int_equal(q->avail, w->ring[1].avail);
    assert_int_equal(q->used, w->ring[1].used);
    assert_int_equal(w->probe->notified[1], 1);
    assert_int_equal(w->probe->notified[0], 0);
    assert_int_equal(w->probe->state.virtio.driver_features & ~virtio_device_features(&w->probe->backend), 0);
    mmio_put(w->dev, 0x040, 0);
    driver_notify(w->dev, 1);
    assert_int_equal(w->probe->notified[1], 1);
}

static void the_legacy_page_size_survives_the_drivers_reset(void **state)
{
    struct world *w = *state;
    mmio_put(w->dev, 0x028, 4096);
    mmio_put(w->dev, 0x070, 0);
    mmio_put(w->dev, 0x070, 3);
    mmio_put(w->dev, 0x040, (uint32_t)(w->ring[0].desc / 4096));
    mmio_put(w->dev, 0x070, 7);
    assert_int_equal(w->probe->notified[0], 1);
    w->dev->ops->reset(w->dev);
    mmio_put(w->dev, 0x070, 3);
    mmio_put(w->dev, 0x040, (uint32_t)(w->ring[0].desc / 4096));
    mmio_put(w->dev, 0x070, 7);
    assert_int_equal(w->probe->notified[0], 1);
}

static void legacy_nonsense_breaks_the_device(void **state)
{
    static const struct {
        uint32_t page, align, pfn;
    } rows[] = {
        { 0, 4096, 0x80001 },
        { 4096, 0, 0x80001 },
        { 4096, 3, 0x80001 },
        { 4096, 4096, UINT32_MAX },
        { UINT32_MAX, 4096, UINT32_MAX },
        { 4096, 0x80000000, 0x80001 },
        { 1, 4096, 0x80001001 },
    };
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mmio_put(w->dev, 0x070, 0);
        mmio_put(w->dev, 0x070, 3);
        mmio_put(w->dev, 0x028, rows[i].page);
        mmio_put(w->dev, 0x03c, rows[i].align);
        mmio_put(w->dev, 0x040, rows[i].pfn);
        mmio_put(w->dev, 0x070, 7);
        driver_notify(w->dev, 0);
        if (w->probe->notified[0])
            fail_msg("row %u was accepted", i);
    }
}

static void a_drained_device_waits_for_resume(void **state)
{
    struct world *w = *state;
    bring_up(w);
    w->dev->ops->drain(w->dev);
    assert_int_equal(w->probe->drains, 1);
    assert_false(virtio_running(&w->probe->backend));
    driver_notify(w->dev, 0);
    assert_int_equal(w->probe->notified[0], 1);
    w->dev->ops->resume(w->dev);
    assert_int_equal(w->probe->resumes, 1);
    assert_true(virtio_running(&w->probe->backend));
}

static void a_moved_device_keeps_rings_and_interrupt(void **state)
{
    struct world *w = *state;
    struct probe *other;
    struct device *there = make(w, &other, 1, false);
    bring_up(w);
    w->probe->state.virtio.queue[0].last_avail = 5;
    w->probe->state.virtio.queue[0].used_idx = 3;
    w->probe->state.virtio.isr = 1;
    dev_move(w->dev, there);
    assert_true(pin_high(&w->pins, 1));
    assert_int_equal(other->state.virtio.queue[0].last_avail, 5);
    assert_memory_equal(&other->state, &w->probe->state, sizeof(other->state));
    driver_notify(there, 0);
    assert_int_equal(other->notified[0], 1);
    dev_free(there);
}

static void impossible_states_are_refused(void **state)
{
    struct world *w = *state;
    bring_up(w);
    const struct virtio_state good = w->probe->state.virtio;
    for (unsigned lie = 0; lie < 6; lie++) {
        struct virtio_state bad = good;
        switch (lie) {
        case 0: bad.queue[0].num = 3; break;
        case 1: bad.queue[0].num = 2 * SIZE; break;
        case 2: bad.queue[0].num = 0; break;
        case 3: bad.queue[0].last_avail = SIZE + 1; break;
        case 4: bad.queue[QUEUES].ready = 1; break;
        case 5: bad.driver_features |= UINT64_C(1) << 50; break;
        }
        struct buf bytes = { 0 };
        struct probe_state wrapped = { .virtio = bad };
        state_save(&probe_desc, &wrapped, &bytes);
        if (dev_load(w->dev, &bytes) >= 0)
            fail_msg("lie %u was believed", lie);
        assert_memory_equal(&w->probe->state.virtio, &good, sizeof(good));
        buf_free(&bytes);
    }
}

#define M(f) cmocka_unit_test_setup_teardown(f, setup_modern, teardown)
#define L(f) cmocka_unit_test_setup_teardown(f, setup_legacy, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_slot_has_no_device),
        M(a_modern_driver_comes_up),
        M(features_that_do_not_exist_are_not_ok),
        M(settled_features_stay_settled),
        M(notifications_before_driver_ok_do_nothing),
        M(interrupts_stand_until_acknowledged),
        M(a_bad_ring_needs_reset_and_is_deaf_until_then),
        M(queues_outside_ram_break_the_device),
        M(impossible_queue_sizes_break_the_device),
        M(a_live_queue_keeps_its_layout),
        M(configuration_is_read_in_any_width_and_no_further),
        L(a_legacy_driver_comes_up),
        L(the_legacy_page_size_survives_the_drivers_reset),
        L(legacy_nonsense_breaks_the_device),
        M(a_drained_device_waits_for_resume),
        M(a_moved_device_keeps_rings_and_interrupt),
        M(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
