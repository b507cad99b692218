/* A hostile guest at the registers of every device of the board, with memory for rings: accesses of every size, also
 * misaligned and beside the regions, stores to RAM, input from the host, pauses. Each input is a row of steps. No harts run:
 * their threads stand still, and what they would do is done here. Whatever a guest brings about can travel: each device's
 * state is saved and loads again as the same bytes. */
#include "base/clock.h"
#include "machine/board.h"
#include "machine/machine_impl.h"
#include "tests/fuzz/fuzz.h"

enum { STEPS_MAX = 512, RING_BYTES = 0x2000, SMALL = 0x10000 };

static struct fuzz_machine it;

static uint64_t place(struct input *in)
{
    const struct bus *bus = &it.machine->bus;
    const struct bus_region *region = &bus->region[take(in, 1) % bus->regions];
    uint64_t offset = take(in, 3);
    /* most of the time a register; sometimes whatever is behind the region */
    return region->gpa + (offset >> 20 == 15 ? offset & 0xfffff : offset % region->bytes);
}

static void load(struct input *in)
{
    uint64_t value, gpa = place(in);
    bus_device_read(&it.machine->bus, gpa, 1u << take(in, 1) % 4, &value);
}

static void store(struct input *in)
{
    uint64_t gpa = place(in);
    unsigned size = 1u << take(in, 1) % 4;
    bus_device_write(&it.machine->bus, gpa, size, take(in, size));
}

static void poke(struct input *in)
{
    uint64_t gpa = BOARD_RAM_BASE + take(in, 2);
    size_t bytes;
    const uint8_t *data = take_bytes(in, 1 + take(in, 1) % 32, &bytes);
    if (bytes)
        ram_write(machine_ram(it.machine), gpa, data, bytes);
}

/* An honest driver's first steps, so that the fuzzer need not find them. */
static void bring_up(struct input *in)
{
    uint64_t slot = take(in, 1) % 3, base = 0x10001000 + (7 - slot) * 0x1000;
    static const struct {
        uint16_t offset;
        uint32_t value;
    } begin[] = { { 0x70, 0 }, { 0x70, 3 }, { 0x24, 0 },  { 0x20, 0x30000000 },
                  { 0x24, 1 }, { 0x20, 1 }, { 0x70, 11 }, { 0x28, 4096 } };
    for (unsigned i = 0; i < sizeof(begin) / sizeof(begin[0]); i++)
        bus_device_write(&it.machine->bus, base + begin[i].offset, 4, begin[i].value);
    for (uint32_t q = 0; q < 2; q++) {
        uint32_t desc = (uint32_t)(BOARD_RAM_BASE + q * RING_BYTES);
        const uint32_t rows[][2] = { { 0x30, q },    { 0x38, 16 },           { 0x40, slot == 0 ? desc >> 12 : 0 },
                                     { 0x80, desc }, { 0x90, desc + 0x800 }, { 0xa0, desc + 0x1000 },
                                     { 0x44, 1 } };
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
            bus_device_write(&it.machine->bus, base + rows[i][0], 4, rows[i][1]);
    }
    bus_device_write(&it.machine->bus, base + 0x70, 4, 15);
}

/* A descriptor whose buffer lies in the first 64 KiB, and its place in the ring. */
static void offer(struct input *in)
{
    uint8_t desc[16];
    uint64_t ring = BOARD_RAM_BASE + take(in, 1) % 2 * RING_BYTES;
    unsigned number = (unsigned)take(in, 1) % 16;
    le64_put(desc, BOARD_RAM_BASE + take(in, 2));
    le32_put(desc + 8, (uint32_t)take(in, 2));
    le16_put(desc + 12, (uint16_t)(take(in, 1) % 8));
    le16_put(desc + 14, (uint16_t)(take(in, 1) % 17));
    ram_write(machine_ram(it.machine), ring + 16 * number, desc, sizeof(desc));
    uint8_t available[2];
    le16_put(available, (uint16_t)take(in, 1));
    ram_write(machine_ram(it.machine), ring + 0x800 + 2, available, 2);
    le16_put(available, (uint16_t)number);
    ram_write(machine_ram(it.machine), ring + 0x800 + 4 + 2 * (take(in, 1) % 16), available, 2);
}

static void travel(void)
{
    struct machine_section section[MACHINE_SECTIONS_MAX];
    struct machine *m = it.machine;
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->drain)
            device->ops->drain(device);
    }
    unsigned sections = machine_sections(m, section);
    for (unsigned i = 0; i < sections; i++) {
        struct buf first = { 0 }, second = { 0 };
        struct err err = { 0 };
        state_save(section[i].desc, section[i].object, &first);
        struct reader reader = reader_of(first.data, first.size);
        if (state_load(section[i].desc, section[i].object, section[i].desc->version, &reader, &err) < 0) {
            fprintf(stderr, "what the guest brought about cannot travel: %s\n", err.text);
            abort();
        }
        state_save(section[i].desc, section[i].object, &second);
        FUZZ_CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
        buf_free(&first);
        buf_free(&second);
    }
    machine_loaded(m);
    for (unsigned i = 0; i < m->board.devices; i++) {
        struct device *device = m->board.device[i];
        if (device->ops->resume)
            device->ops->resume(device);
    }
}

static void step(struct input *in)
{
    switch (take(in, 1) % 9) {
    case 0:
    case 1: store(in); break;
    case 2: load(in); break;
    case 3: poke(in); break;
    case 4: bring_up(in); break;
    case 5: offer(in); break;
    case 6: /* notify */
        bus_device_write(&it.machine->bus, 0x10001000 + (7 - take(in, 1) % 3) * 0x1000 + 0x50, 4, take(in, 1) % 3);
        break;
    case 7: travel(); break;
    default:
        guest_clock_set_ns(machine_clock(it.machine), (int64_t)(take(in, 6)));
        timers_clock_changed(it.machine->timers);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    if (!it.machine) {
        struct err err = { 0 };
        fuzz_machine_new(&it, false, true, false);
        FUZZ_CHECK(machine_take_disks(it.machine, &err) == 0);
    }
    for (unsigned steps = 0; in.size && steps < STEPS_MAX; steps++)
        step(&in);
    travel();
    machine_take_request(it.machine, &(unsigned){ 0 });
    static uint8_t zeros[SMALL + PAGE_BYTES];
    ram_write(machine_ram(it.machine), BOARD_RAM_BASE, zeros, sizeof(zeros));
    machine_unload(it.machine);
    return 0;
}
