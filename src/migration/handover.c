#include "migration/handover.h"

#include <assert.h>
#include <stddef.h>

struct row {
    enum handover_state state;
    enum handover_event event;
    enum handover_state next;
    unsigned            actions;
};

/* clang-format off */
static const struct row table[] = {
    /* Before the EOF the destination cannot have loaded the guest: whatever happens, it is here. */
    { SOURCE_MOVING, EVENT_STOPPED, SOURCE_STOPPED, 0 },
    { SOURCE_MOVING, EVENT_PEER_ERROR, SOURCE_HERE, DO_RESUME },
    { SOURCE_MOVING, EVENT_LINK_LOST, SOURCE_HERE, DO_RESUME },
    { SOURCE_MOVING, EVENT_SILENCE, SOURCE_HERE, DO_RESUME },
    { SOURCE_MOVING, EVENT_CANCEL, SOURCE_HERE, DO_RESUME },

    { SOURCE_STOPPED, EVENT_SENT, SOURCE_ASKED, 0 },
    { SOURCE_STOPPED, EVENT_OVERRUN, SOURCE_MOVING, DO_RESUME },
    { SOURCE_STOPPED, EVENT_PEER_ERROR, SOURCE_HERE, DO_RESUME },
    { SOURCE_STOPPED, EVENT_LINK_LOST, SOURCE_HERE, DO_RESUME },
    { SOURCE_STOPPED, EVENT_SILENCE, SOURCE_HERE, DO_RESUME },
    { SOURCE_STOPPED, EVENT_CANCEL, SOURCE_HERE, DO_RESUME },

    /* Without GO it cannot run there: still ours to take back. */
    { SOURCE_ASKED, EVENT_PREPARED, SOURCE_RELEASING, DO_WRITE_RELEASED },
    { SOURCE_ASKED, EVENT_PREPARED_MISMATCH, SOURCE_HERE, DO_SEND_RETRACT | DO_RESUME },
    { SOURCE_ASKED, EVENT_OVERRUN, SOURCE_MOVING, DO_SEND_RETRACT | DO_RESUME },
    { SOURCE_ASKED, EVENT_PEER_ERROR, SOURCE_HERE, DO_RESUME },
    { SOURCE_ASKED, EVENT_LINK_LOST, SOURCE_HERE, DO_RESUME },
    { SOURCE_ASKED, EVENT_SILENCE, SOURCE_HERE, DO_SEND_RETRACT | DO_RESUME },
    { SOURCE_ASKED, EVENT_CANCEL, SOURCE_HERE, DO_SEND_RETRACT | DO_RESUME },

    /* Once written, or half written, a restart would read it: forget it before the guest runs. */
    { SOURCE_RELEASING, EVENT_WRITTEN, SOURCE_RELEASED, DO_SEND_GO },
    { SOURCE_RELEASING, EVENT_WRITE_FAILED, SOURCE_HERE, DO_SEND_RETRACT | DO_RESUME | DO_FORGET_RELEASED },

    { SOURCE_RELEASED, EVENT_RUNNING, SOURCE_AWAY, DO_FORGET_RELEASED },
    { SOURCE_RELEASED, EVENT_REFUSED, SOURCE_HERE, DO_RESUME | DO_FORGET_RELEASED },
    { SOURCE_RELEASED, EVENT_PEER_ERROR, SOURCE_UNRESOLVED, 0 },
    { SOURCE_RELEASED, EVENT_LINK_LOST, SOURCE_UNRESOLVED, 0 },
    { SOURCE_RELEASED, EVENT_SILENCE, SOURCE_UNRESOLVED, 0 },

    { SOURCE_UNRESOLVED, EVENT_RUNNING, SOURCE_AWAY, DO_FORGET_RELEASED },
    { SOURCE_UNRESOLVED, EVENT_REFUSED, SOURCE_HERE, DO_RESUME | DO_FORGET_RELEASED },
    { SOURCE_UNRESOLVED, EVENT_RESOLVE_HERE, SOURCE_HERE, DO_RESUME | DO_FORGET_RELEASED },
    { SOURCE_UNRESOLVED, EVENT_RESOLVE_THERE, SOURCE_AWAY, DO_FORGET_RELEASED },

    { TARGET_LOADING, EVENT_LOADED, TARGET_PREPARED, DO_SEND_PREPARED },
    { TARGET_LOADING, EVENT_LOAD_FAILED, TARGET_EMPTY, DO_UNLOAD | DO_SEND_ERROR },
    { TARGET_LOADING, EVENT_PEER_ERROR, TARGET_EMPTY, DO_UNLOAD | DO_SEND_ERROR },
    { TARGET_LOADING, EVENT_LINK_LOST, TARGET_EMPTY, DO_UNLOAD },
    { TARGET_LOADING, EVENT_CANCEL, TARGET_EMPTY, DO_UNLOAD | DO_SEND_ERROR },

    { TARGET_PREPARED, EVENT_GO, TARGET_STARTING, DO_START },
    { TARGET_PREPARED, EVENT_RETRACT, TARGET_LOADING, DO_UNLOAD | DO_SEND_RETRACTED },
    { TARGET_PREPARED, EVENT_ASK, TARGET_PREPARED, DO_SEND_PREPARED },
    { TARGET_PREPARED, EVENT_LINK_LOST, TARGET_UNRESOLVED, 0 },
    { TARGET_PREPARED, EVENT_PEER_ERROR, TARGET_UNRESOLVED, 0 },

    { TARGET_STARTING, EVENT_STARTED, TARGET_RUNS, DO_SEND_RUNNING },
    { TARGET_STARTING, EVENT_START_FAILED, TARGET_REFUSED, DO_UNLOAD | DO_WRITE_REFUSED | DO_SEND_REFUSED },

    { TARGET_UNRESOLVED, EVENT_GO, TARGET_STARTING, DO_START },
    { TARGET_UNRESOLVED, EVENT_RETRACT, TARGET_EMPTY, DO_UNLOAD | DO_SEND_RETRACTED },
    { TARGET_UNRESOLVED, EVENT_RESOLVE_HERE, TARGET_STARTING, DO_START },
    { TARGET_UNRESOLVED, EVENT_RESOLVE_THERE, TARGET_EMPTY, DO_UNLOAD },

    { TARGET_RUNS, EVENT_ASK, TARGET_RUNS, DO_SEND_RUNNING },
    { TARGET_RUNS, EVENT_GO, TARGET_RUNS, DO_SEND_RUNNING },
    { TARGET_REFUSED, EVENT_ASK, TARGET_REFUSED, DO_SEND_REFUSED },
    { TARGET_REFUSED, EVENT_GO, TARGET_REFUSED, DO_SEND_REFUSED },
};

static const char *const state_names[HANDOVER_STATES] = {
    [SOURCE_MOVING] = "moving", [SOURCE_STOPPED] = "stopped", [SOURCE_ASKED] = "asked",
    [SOURCE_RELEASING] = "releasing", [SOURCE_RELEASED] = "released", [SOURCE_UNRESOLVED] = "unresolved",
    [SOURCE_AWAY] = "away", [SOURCE_HERE] = "here", [TARGET_LOADING] = "loading", [TARGET_PREPARED] = "prepared",
    [TARGET_STARTING] = "starting", [TARGET_UNRESOLVED] = "prepared, link lost", [TARGET_RUNS] = "runs",
    [TARGET_REFUSED] = "refused", [TARGET_EMPTY] = "empty",
};

static const char *const event_names[HANDOVER_EVENTS] = {
    [EVENT_STOPPED] = "stopped", [EVENT_OVERRUN] = "overrun", [EVENT_SENT] = "sent", [EVENT_PREPARED] = "PREPARED",
    [EVENT_PREPARED_MISMATCH] = "PREPARED, digests differ", [EVENT_WRITTEN] = "written",
    [EVENT_WRITE_FAILED] = "write failed", [EVENT_RUNNING] = "RUNNING", [EVENT_REFUSED] = "REFUSED",
    [EVENT_LOADED] = "loaded", [EVENT_LOAD_FAILED] = "load failed", [EVENT_GO] = "GO", [EVENT_RETRACT] = "RETRACT",
    [EVENT_STARTED] = "started", [EVENT_START_FAILED] = "start failed", [EVENT_ASK] = "ASK",
    [EVENT_PEER_ERROR] = "the peer's error", [EVENT_LINK_LOST] = "link lost", [EVENT_SILENCE] = "silence",
    [EVENT_CANCEL] = "cancel", [EVENT_RESOLVE_HERE] = "resolve here", [EVENT_RESOLVE_THERE] = "resolve there",
};
/* clang-format on */

struct handover_step handover_step(enum handover_state state, enum handover_event event)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].state == state && table[i].event == event)
            return (struct handover_step){ table[i].next, table[i].actions };
    return (struct handover_step){ state, 0 };
}

bool handover_ended(enum handover_state state)
{
    return state == SOURCE_AWAY || state == SOURCE_HERE || state == TARGET_RUNS || state == TARGET_REFUSED ||
           state == TARGET_EMPTY;
}

const char *handover_state_name(enum handover_state state)
{
    assert(state < HANDOVER_STATES);
    return state_names[state];
}

const char *handover_event_name(enum handover_event event)
{
    assert(event < HANDOVER_EVENTS);
    return event_names[event];
}
