#include "migration/times.h"

#include "base/clock.h"

const char *const handover_mark_names[HANDOVER_MARKS] = {
    [MARK_STOP_ASKED] = "stop-asked",
    [MARK_STOPPED] = "stopped",
    [MARK_PAUSED] = "paused",
    [MARK_RAM_TAKEN] = "ram-taken",
    [MARK_ROUND_CLOSED] = "round-closed",
    [MARK_STATE_SAVED] = "state-saved",
    [MARK_SENT] = "sent",
    [MARK_PREPARED] = "prepared",
    [MARK_AGREED] = "agreed",
    [MARK_RELEASED] = "released",
    [MARK_GO] = "go",
    [MARK_RUNNING] = "running",
    [MARK_EOF] = "eof",
    [MARK_RAM_LOADED] = "ram-loaded",
    [MARK_STATE_LOADED] = "state-loaded",
    [MARK_PREPARED_SENT] = "prepared-sent",
    [MARK_SETTLED] = "settled",
    [MARK_GO_READ] = "go-read",
    [MARK_STARTED] = "started",
    [MARK_FIRST_RUN] = "first-run",
};

void handover_mark(struct handover_times *times, enum handover_mark mark)
{
    times->at_ns[mark] = clock_now_ns();
}

void handover_device(struct handover_times *times, const char *name, uint32_t instance, int64_t ns)
{
    if (times->devices == HANDOVER_DEVICES_MAX)
        return;
    times->device[times->devices].name = name;
    times->device[times->devices].instance = instance;
    times->device[times->devices++].ns = ns;
}
