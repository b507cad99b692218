/* Constructors of every device of the board. Each returns a device that board.c maps at dev->gpa; wires and host
 * ends are passed in. All are called on the main thread before the first vCPU starts. NULL + err on failure. */
#pragma once
#include "base/chardev.h"
#include "block/block.h"
#include "hw/device.h"

/* ns16550a UART, byte registers 0..7, 16-byte FIFOs (16550D data sheet). */
struct device *uart_new(struct irq_line irq, struct chardev *chardev, struct timers *timers, struct err *err);

/* PLIC: 95 sources, contexts M then S of each hart (RISC-V PLIC specification 1.0.0). out[context] are harts' pins. */
enum { PLIC_SOURCES = 96, PLIC_CONTEXTS_MAX = 128 };
struct device *plic_new(unsigned contexts, const struct irq_line *out, struct err *err);
struct irq_line plic_input(struct device *plic, unsigned source); /* level-triggered input */

/* ACLINT in CLINT layout: MSWI at 0, MTIMER compares at 0x4000, mtime at 0xbff8. One device, bytes 0x10000. */
struct device *aclint_new(unsigned harts, const struct irq_line *msip, const struct irq_line *mtip,
                          struct guest_clock *clock, struct timers *timers, struct err *err);

/* goldfish RTC: nanoseconds of host CLOCK_REALTIME; alarm. The guest sees a pause through it. */
struct device *rtc_new(struct irq_line irq, struct timers *timers, struct err *err);

/* sifive_test: power off, reset, fail with a code. */
enum power_action { POWER_OFF, POWER_RESET, POWER_FAIL };
struct device *power_new(void (*act)(void *opaque, enum power_action action, unsigned code), void *opaque,
                         struct err *err);

/* virtio-mmio slot (virtio 1.2, 4.2; legacy layout 4.2.4). An empty slot reads device id 0. The backend is a
 * function pointer table of its own (virtio.h); slot 0..7. */
struct virtio_backend;
struct device *virtio_mmio_new(unsigned slot, struct ram *ram, struct irq_line irq, struct virtio_backend *backend,
                               bool legacy, struct err *err);
struct virtio_backend *virtio_rng_new(struct err *err);
struct virtio_backend *virtio_console_new(struct chardev *chardev, struct err *err);

/* What to do when the disk fails; the guest is told, the machine stops and tries again when it goes on, or (it asked for
 * it) nothing happens. ENOSPC: stop if the host has no room, else report. */
enum virtio_blk_error { BLK_REPORT, BLK_STOP, BLK_IGNORE, BLK_ENOSPC };
enum { VIRTIO_BLK_SERIAL_MAX = 20, VIRTIO_BLK_QUEUES_MAX = 4 };
struct virtio_blk_options {
    struct block *block; /* stays its owner's, who frees it after the device; taken while the machine runs */
    char serial[VIRTIO_BLK_SERIAL_MAX + 1];
    unsigned queues; /* 1 .. VIRTIO_BLK_QUEUES_MAX */
    enum virtio_blk_error on_read_error, on_write_error;
    void (*stop)(void *opaque); /* stop the machine, please: from a thread of the disk, only leaves a note */
    void *opaque;
};
struct virtio_backend *virtio_blk_new(const struct virtio_blk_options *options, struct err *err);
