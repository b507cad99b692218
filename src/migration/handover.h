/* Who owns the guest: a pure function (state, event) -> (state, actions), for either end.
 *
 * The promise: at most one side ever runs the guest, and unless a host burned down one of them can. It is kept by one
 * point of no return: the source writes RELEASED before it sends GO, and never runs the guest by itself afterwards;
 * the destination never runs it before GO, and once it said PREPARED drops it only on RETRACT or an operator's word.
 * Whoever cannot answer (a pipe, another program) starts by itself at the stream's last byte: for it that byte is GO.
 * A rehearsal goes the same way up to PREPARED. Both ends know from the hello what it is: the source says RETRACT then, and the
 * destination has no way to run.
 * Nothing here sleeps, sends or asks the time; outgoing.c and incoming.c perform the actions, in the order of their
 * bits. An event that a state does not expect changes nothing: late and doubled messages are of that kind. */
#pragma once
#include <stdbool.h>

enum handover_state {
    /* source */
    SOURCE_MOVING,     /* rounds; the guest runs here, or was paused before we came */
    SOURCE_STOPPED,    /* paused for the last round and the devices; the peer's loader lacks the EOF */
    SOURCE_ASKED,      /* EOF is on its way: waiting for PREPARED */
    SOURCE_RELEASING,  /* PREPARED matched; RELEASED is being written down */
    SOURCE_RELEASED,   /* written down, GO may have been sent */
    SOURCE_UNRESOLVED, /* RELEASED, and the peer fell silent: nobody runs here until somebody knows */
    SOURCE_AWAY,       /* end: the guest is there */
    SOURCE_HERE,       /* end: the guest is here */
    /* destination */
    TARGET_LOADING,
    TARGET_PREPARED,  /* said so; holds the guest for whoever asks */
    TARGET_STARTING,  /* GO came */
    TARGET_REHEARSED, /* PREPARED, of a copy whose guest stays at home: no GO starts it, no lost line makes it a doubt */
    TARGET_UNRESOLVED, /* PREPARED, and the link it came over is gone: holds on, runs nothing. The source may come back
                          over another, which carries words but no memory */
    TARGET_RUNS,       /* end */
    TARGET_REFUSED,    /* end: after GO it could not, wrote that down, never will */
    TARGET_EMPTY,      /* end: nothing was loaded, or it was dropped */
    HANDOVER_STATES,
};

enum handover_event {
    /* source */
    HANDOVER_STOPPED,           /* machine_pause returned */
    HANDOVER_OVERRUN,           /* the pause grows too long: let the guest run on, go another round */
    HANDOVER_SENT,              /* the EOF was given to the street */
    HANDOVER_PREPARED,          /* PREPARED, digests equal */
    HANDOVER_PREPARED_MISMATCH, /* PREPARED, digests differ */
    HANDOVER_WRITTEN,           /* RELEASED is written down */
    HANDOVER_WRITE_FAILED,
    HANDOVER_RUNNING,
    HANDOVER_REFUSED,
    HANDOVER_UNANSWERED, /* all but the last byte is with a peer that cannot answer */
    HANDOVER_TAKEN,      /* and that byte too */
    HANDOVER_STORED,     /* the whole stream is in a file, which runs nothing */
    /* destination */
    HANDOVER_LOADED, /* all there, all checks passed */
    HANDOVER_LOAD_FAILED,
    HANDOVER_GO,
    HANDOVER_RETRACT,
    HANDOVER_STARTED,
    HANDOVER_START_FAILED,
    HANDOVER_ASK, /* the source, on a new line, wants the last answer again */
    /* both */
    HANDOVER_REHEARSED,  /* instead of PREPARED, and of LOADED, when it was only a rehearsal */
    HANDOVER_PEER_ERROR, /* its sentence, or a message that is none */
    HANDOVER_LINK_LOST,
    HANDOVER_SILENCE, /* nothing heard for peer-timeout */
    HANDOVER_CANCEL,
    HANDOVER_RESOLVE_HERE,
    HANDOVER_RESOLVE_THERE,
    HANDOVER_EVENTS,
};

enum handover_action {
    DO_FORGET_RELEASED =
        1 << 0, /* remove what was written down; first: whoever reads it may count on the destination */
    DO_SEND_RETRACT = 1 << 1,
    DO_RESUME = 1 << 2,         /* source: unseal, and let the guest run if it ran before */
    DO_WRITE_RELEASED = 1 << 3, /* then feed back WRITTEN or WRITE_FAILED */
    DO_SEND_GO = 1 << 4,
    DO_UNLOAD = 1 << 5, /* destination: back to an empty machine */
    DO_SEND_PREPARED = 1 << 6,
    DO_START = 1 << 7, /* then STARTED or START_FAILED */
    DO_SEND_RUNNING = 1 << 8,
    DO_WRITE_REFUSED = 1 << 9,
    DO_SEND_REFUSED = 1 << 10,
    DO_SEND_RETRACTED = 1 << 11,
    DO_SEND_ERROR = 1 << 12,
    DO_SEND_DONE = 1 << 13, /* source: heard you, nobody will ask again */
};

struct handover_step {
    enum handover_state state;
    unsigned actions; /* of enum handover_action */
};

struct handover_step handover_step(enum handover_state state, enum handover_event event);

bool handover_ended(enum handover_state state);
const char *handover_state_name(enum handover_state state);
const char *handover_event_name(enum handover_event event);
