/* The machine: where the parts are joined. Makes them from one description, runs, pauses, walks all state.
 *
 * machine_pause/resume may be called from the main thread and from the migration's thread (the machine's own lock
 * orders them), never from a vCPU thread. Devices and vCPUs ask for power actions through machine_request(), which
 * only leaves a note and wakes the main thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/chardev.h"
#include "base/fields.h"
#include "block/format.h"
#include "hw/devices.h"
#include "memory/bus.h"
#include "vcpu/jit/jit.h"
#include "vcpu/vcpu.h"

/* QEMU's run states, spelled as query-status spells them. */
enum run_state {
    RUN_PRELAUNCH, /* -S, nothing has run yet */
    RUN_RUNNING,
    RUN_PAUSED,         /* stop */
    RUN_INMIGRATE,      /* waiting for an incoming guest */
    RUN_FINISH_MIGRATE, /* paused by the migration, the guest may come back */
    RUN_POSTMIGRATE,    /* the guest is somewhere else, or in a file */
    RUN_SHUTDOWN,       /* the guest powered off and -no-shutdown holds us */
    RUN_INTERNAL_ERROR,
    RUN_IO_ERROR, /* a disk failed, and the user wants the guest to wait until it is well again */
};
const char *run_state_name(enum run_state state);

enum { MACHINE_DEVICES_MAX = 24, MACHINE_SLOTS = 8, MACHINE_DRIVES_MAX = 8, MACHINE_TEXT_MAX = 4096 };

/* An image that a disk of the guest is in. Of this side only, each side names its own way to it. */
struct machine_drive {
    char id[64];
    char file[MACHINE_TEXT_MAX];
    enum block_cache cache;
    bool readonly, discard;
    bool create; /* make the image when it is not there yet, of `size_bytes`, with nothing in it */
    uint64_t size_bytes;
    bool format_said; /* the user says what the image is; else one that looks like something else is refused */
    enum block_format format;
    /* In place of what a qcow2 image says is below it; "" with backing_said: nothing is. */
    bool backing_said;
    enum block_format backing_format;
    char backing[MACHINE_TEXT_MAX];
};

/* One virtio device as the user asked for it. */
struct machine_slot {
    char model[32]; /* "virtio-rng-device", "virtio-serial-device"+"virtconsole" folded to "virtio-console"; "" none */
    char id[64];
    char chardev[64]; /* for virtio-console */
    struct machine_slot_disk {
        char drive[64]; /* for virtio-blk-device */
        char serial[VIRTIO_BLK_SERIAL_MAX + 1];
        uint8_t queues;
        enum virtio_blk_error on_read_error, on_write_error;
    } disk;
    uint8_t legacy; /* virtio-mmio version 1 */
};

/* A machine, completely: command line, device tree and stream are all made from this. Plain data. */
struct machine_config {
    /* guest-visible: must be equal on both sides of a migration (machine_config_state describes it) */
    uint32_t harts; /* 1 .. HART_MAX */
    uint64_t ram_bytes;
    struct machine_slot slot[MACHINE_SLOTS]; /* slot[7] is the first -device, as on QEMU's virt */
    uint8_t serial;                          /* UART present (always 1 on virt) */
    /* of this side only */
    char name[64];
    uint8_t uuid[16];
    bool uuid_set, debug_threads;
    bool interpret;              /* no generated code */
    bool lockstep;               /* generated code, and the interpreter to compare it with */
    char bios[MACHINE_TEXT_MAX]; /* path, "default" or "none" */
    char kernel[MACHINE_TEXT_MAX], initrd[MACHINE_TEXT_MAX], append[MACHINE_TEXT_MAX]; /* "" none */
    bool ram_share;
    char mem_path[MACHINE_TEXT_MAX];
    struct machine_drive drive[MACHINE_DRIVES_MAX];
    unsigned drives;
    bool no_reboot, no_shutdown;
    bool incoming; /* load no images now */
};
extern const struct state_desc machine_config_state; /* "godwit/machine": the guest-visible part, for hello and files */

struct machine;

/* Host ends that the caller has opened: serial (never NULL: use a null chardev) and the chardevs named in slots. */
struct machine_hosts {
    struct chardev *serial;
    struct chardev *(*find_chardev)(void *opaque, const char *id); /* NULL result: no such id */
    void *opaque;
};

int machine_new(const struct machine_config *config, const struct machine_hosts *hosts, struct machine **out,
                struct err *err); /* all parts; vCPU threads started and paused; state PRELAUNCH or INMIGRATE */
int machine_boot(struct machine *m, struct err *err); /* images, device tree, reset; not on an incoming machine */
void machine_free(struct machine *m);

const struct machine_config *machine_config_of(const struct machine *m);
struct jit *machine_jit(struct machine *m); /* NULL: everything is interpreted */
struct ram *machine_ram(struct machine *m);
struct guest_clock *machine_clock(struct machine *m);
unsigned machine_harts(const struct machine *m);
struct vcpu *machine_vcpu(struct machine *m, unsigned index);
unsigned machine_devices(struct machine *m, struct device **out, unsigned max);

/* --- running and pausing ------------------------------------------------------------------------------- */

enum run_state machine_state(struct machine *m);

/* Bring every vCPU to a safe point, stop the guest clock, drain the devices; when it returns that is true. The
 * state becomes `state`. Pausing a paused machine only changes the state's name, but see machine_hand_over(). */
void machine_pause(struct machine *m, enum run_state state);

/* Let it run: from PRELAUNCH, PAUSED. -EPERM with a sentence from a state that must not run (INMIGRATE,
 * FINISH_MIGRATE, POSTMIGRATE, SHUTDOWN). `force` is the migration's own hand (FINISH_MIGRATE when it failed,
 * POSTMIGRATE after REFUSED, INMIGRATE at GO): a person's `cont` must not overtake a hand-over. */
int machine_resume(struct machine *m, bool force, struct err *err);

/* The migration's own pause. A guest that may leave (RUNNING, PAUSED, PRELAUNCH) stops and becomes FINISH_MIGRATE; any
 * other stays as it is, as does one whose power-off is being answered here. Returns the state it was found in. Until
 * machine_hand_back() a machine_pause() by somebody else only changes what that goes back to: nobody takes the name of a
 * hand-over away, and a guest that was stopped meanwhile does not run on when the hand-over fails. */
enum run_state machine_hand_over(struct machine *m);
void machine_hand_back(struct machine *m); /* from FINISH_MIGRATE, or POSTMIGRATE after REFUSED; else nothing */

/* The answer to REQUEST_IO_ERROR: a guest that runs stops and is in IO_ERROR. */
void machine_stop_for_disk(struct machine *m);

/* The disks belong to whoever runs the guest: taken before it runs (a resume, or a hand_back, that cannot leaves it paused), let
 * go when it becomes POSTMIGRATE. What the guest has written is durable when flush returns 0; it may be running. */
int machine_flush_disks(struct machine *m, struct err *err);
int machine_take_disks(struct machine *m, struct err *err); /* for a guest that arrives and stays paused */
/* The disk that the guest has in a slot; NULL: none, or no disk. let_go: on an incoming machine whose guest did not come. */
struct block *machine_disk(struct machine *m, unsigned slot);
int machine_take_disk(struct machine *m, unsigned slot, struct err *err);
void machine_let_go_disks(struct machine *m);
/* On an incoming machine, before it says that it can: is each of its disks the one that the source has now? */
int machine_disks_shared(struct machine *m, struct err *err);

/* A hand-over's resume must be counted from when the first instruction can run: ns of clock_now_ns(). */
int64_t machine_last_pause_ns(struct machine *m); /* when the last vCPU stopped */
int64_t machine_last_resume_ns(struct machine *m);

/* --- power ---------------------------------------------------------------------------------------------- */

enum machine_request {
    REQUEST_NONE,
    REQUEST_SHUTDOWN,
    REQUEST_RESET,
    REQUEST_POWERDOWN,
    REQUEST_QUIT,
    REQUEST_FAIL,
    REQUEST_IO_ERROR, /* stop: what failed is tried again when the guest goes on, wherever that is */
};

/* Any thread. The notify function (set by main.c) is called and must only wake the main loop. */
void machine_request(struct machine *m, enum machine_request request, unsigned code);
void machine_on_request(struct machine *m, void (*notify)(void *opaque), void *opaque);
/* Main thread; tells the event too. A guest that is on its way keeps its wishes: they are answered where it runs.
 * A reset stays noted until machine_reset() has it under way. */
enum machine_request machine_take_request(struct machine *m, unsigned *code);
int machine_reset(struct machine *m, struct err *err); /* pause, reload images, reset all, resume if it ran */

/* STOP, RESUME, RESET, SHUTDOWN, POWERDOWN for monitors; called on the thread that did it, no lock held. */
enum machine_event { EVENT_STOP, EVENT_RESUME, EVENT_RESET, EVENT_SHUTDOWN, EVENT_POWERDOWN };
void machine_on_event(struct machine *m, void (*event)(void *opaque, enum machine_event event, bool by_guest),
                      void *opaque);

/* --- state, for the migration; machine paused ------------------------------------------------------------ */

struct machine_section {
    const struct state_desc *desc;
    uint32_t instance;
    void *object;      /* what desc describes */
    struct lock *lock; /* hold while saving or loading; NULL: none */
};
enum { MACHINE_SECTIONS_MAX = HART_MAX + MACHINE_DEVICES_MAX + 4 };

/* Every section, in load order: "godwit/clock" (guest ns, and what the guest asked for last), harts, devices. */
unsigned machine_sections(struct machine *m, struct machine_section *out);
/* All sections were loaded: apply the clock, pull wires, set timers, make vCPUs re-read their harts. */
void machine_loaded(struct machine *m);
/* RETRACT: devices and harts back to reset values, so that a load may start over. */
void machine_unload(struct machine *m);
/* Can a guest of `theirs` run here? -EINVAL with one clear sentence naming the first difference. */
int machine_config_match(const struct machine_config *ours, const struct machine_config *theirs, struct err *err);
