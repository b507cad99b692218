/* A guest made of notes, for the debugger's session: three harts, registers that hold their own number, 8 KiB of memory
 * at 0x1000. For test_gdb_session and fuzz_gdb. */
#pragma once
#include <errno.h>
#include <string.h>

#include "monitor/gdb_session.h"

enum { FAKE_HARTS = 3, FAKE_BASE = 0x1000, FAKE_BYTES = 0x2000 };

static struct fake_guest {
    struct buf sent;
    uint64_t reg[FAKE_HARTS][DEBUG_REG_PC + 1];
    uint8_t memory[FAKE_BYTES];
    enum debug_mode modes[HART_MAX];
    enum debug_space space; /* of the last access */
    unsigned stops, resumes, detaches, kills, points;
    uint64_t last_point;
    int refuse; /* what every access says, when not 0 */
    char line[64];
    const char *says; /* the monitor, to any line */
} guest;

static unsigned fake_harts(void *opaque)
{
    (void)opaque;
    return FAKE_HARTS;
}

static void fake_stop(void *opaque)
{
    (void)opaque;
    guest.stops++;
}

static int fake_resume(void *opaque, const enum debug_mode *modes, struct err *err)
{
    (void)opaque;
    if (guest.refuse)
        return err_set(err, guest.refuse, "the guest is elsewhere");
    memcpy(guest.modes, modes, FAKE_HARTS * sizeof(modes[0]));
    guest.resumes++;
    return 0;
}

static int fake_read_register(void *opaque, unsigned hart, unsigned number, uint64_t *value)
{
    (void)opaque;
    if (guest.refuse || number > DEBUG_REG_PC)
        return guest.refuse ? guest.refuse : -ENOENT;
    *value = guest.reg[hart][number];
    return 0;
}

static int fake_write_register(void *opaque, unsigned hart, unsigned number, uint64_t value)
{
    (void)opaque;
    if (guest.refuse || number > DEBUG_REG_PC)
        return guest.refuse ? guest.refuse : -ENOENT;
    guest.reg[hart][number] = value;
    return 0;
}

static ssize_t fake_room(uint64_t at, size_t bytes, enum debug_space space)
{
    guest.space = space;
    if (guest.refuse)
        return guest.refuse;
    if (at < FAKE_BASE || at >= FAKE_BASE + FAKE_BYTES)
        return -EFAULT;
    uint64_t room = FAKE_BASE + FAKE_BYTES - at;
    return (ssize_t)(bytes < room ? bytes : room);
}

static ssize_t fake_read_memory(void *opaque, unsigned hart, enum debug_space space, uint64_t at, void *out,
                                size_t bytes)
{
    ssize_t room = fake_room(at, bytes, space);
    (void)opaque, (void)hart;
    if (room > 0)
        memcpy(out, guest.memory + (at - FAKE_BASE), (size_t)room);
    return room;
}

static ssize_t fake_write_memory(void *opaque, unsigned hart, enum debug_space space, uint64_t at, const void *data,
                                 size_t bytes)
{
    ssize_t room = fake_room(at, bytes, space);
    (void)opaque, (void)hart;
    if (room > 0)
        memcpy(guest.memory + (at - FAKE_BASE), data, (size_t)room);
    return room;
}

static int fake_point(void *opaque, uint64_t pc, unsigned kind, bool on)
{
    (void)opaque;
    guest.last_point = pc << 8 | kind;
    guest.points += on ? 1 : -1u;
    return pc & 1 ? -EINVAL : 0;
}

static const char *fake_hart_state(void *opaque, unsigned hart)
{
    (void)opaque;
    return hart == 1 ? "wfi" : "paused";
}

static void fake_command(void *opaque, const char *line, struct buf *out)
{
    (void)opaque;
    snprintf(guest.line, sizeof(guest.line), "%.60s", line);
    if (guest.says)
        gdb_put_text(out, guest.says);
}

static void fake_detach(void *opaque)
{
    (void)opaque;
    guest.detaches++;
}

static void fake_kill(void *opaque)
{
    (void)opaque;
    guest.kills++;
}

static void fake_send(void *opaque, const void *data, size_t bytes)
{
    (void)opaque;
    buf_put(&guest.sent, data, bytes);
}

static const struct gdb_target fake_target = {
    .harts = fake_harts,
    .stop = fake_stop,
    .resume = fake_resume,
    .read_register = fake_read_register,
    .write_register = fake_write_register,
    .read_memory = fake_read_memory,
    .write_memory = fake_write_memory,
    .point = fake_point,
    .hart_state = fake_hart_state,
    .command = fake_command,
    .detach = fake_detach,
    .kill = fake_kill,
    .send = fake_send,
};

static void fake_guest_reset(void)
{
    buf_free(&guest.sent);
    guest = (struct fake_guest){ .says = "" };
    for (unsigned hart = 0; hart < FAKE_HARTS; hart++)
        for (unsigned n = 0; n <= DEBUG_REG_PC; n++)
            guest.reg[hart][n] = (uint64_t)hart << 32 | n;
}
