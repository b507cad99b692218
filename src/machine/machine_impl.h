/* The machine's own struct, for machine.c and machine_state.c only. */
#pragma once
#include <stdatomic.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/timer.h"
#include "machine/board.h"
#include "machine/drives.h"
#include "machine/machine.h"
#include "machine/tohost.h"
#include "vcpu/debug.h"

/* "godwit/clock": guest time does not pass between machines. And what the guest has asked for just before it was
 * paused: the main thread answers that wherever the guest goes on. */
struct machine_clock_state {
    int64_t guest_ns;
    uint32_t requests; /* bit per enum machine_request */
    uint32_t fail_code;
};

enum { MACHINE_GUEST_REQUESTS = 1u << REQUEST_SHUTDOWN | 1u << REQUEST_RESET | 1u << REQUEST_FAIL };

struct machine {
    /* fixed after new */
    struct machine_config config;
    struct machine_hosts hosts;
    struct ram *ram;
    struct bus bus;
    struct guest_clock clock;
    struct timers *timers;
    struct jit *jit; /* NULL: everything is interpreted */
    struct vcpu *vcpu[HART_MAX];
    struct board board;
    struct drives drives; /* taken or not: under lock */
    struct tohost tohost;
    void (*notify)(void *opaque);
    void *notify_opaque;
    void (*event)(void *opaque, enum machine_event event, bool by_guest);
    void *event_opaque;

    struct lock lock; /* MACHINE */
    /* under lock */
    bool running;          /* vCPUs are let go, the clock runs */
    bool off;              /* the guest's power-off was taken to be answered here, until a reset */
    enum run_state before; /* what machine_hand_back() goes back to */
    bool debugged;
    struct warm *warm; /* of an arrival (warm.c): changed by the migration's thread, which may read it without */
    struct debug_points points; /* changed while paused only: vCPUs read it without the lock */

    /* atomic */
    _Atomic int state; /* enum run_state; written under lock */
    _Atomic int64_t last_pause_ns, last_resume_ns;
    _Atomic uint32_t requests;       /* bit per enum machine_request */
    _Atomic uint32_t guest_requests; /* those of them that the guest made */
    _Atomic uint32_t fail_code;

    /* machine paused */
    struct machine_clock_state clock_state;
};

void machine_emit(struct machine *m, enum machine_event event, bool by_guest);
void machine_note_guest(struct machine *m);  /* clock_state from clock and requests */
void machine_ask_again(struct machine *m);   /* and back: requests that clock_state holds */
void machine_reset_parts(struct machine *m); /* devices and harts; paused */
