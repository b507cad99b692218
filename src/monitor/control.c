/* Commands that make the machine run, stop, reset and end. */
#include <errno.h>

#include "monitor/monitor_priv.h"

/* A guest that is being handed over is the migration's: nobody else may run or stop it meanwhile. */
static bool handing_over(struct monitor *monitor)
{
    struct migration_info info;
    if (machine_state(monitor->context.machine) == RUN_FINISH_MIGRATE)
        return true;
    migration_query(monitor->context.migration, &info);
    return info.state == MIGRATION_DEVICE && !info.incoming;
}

void monitor_run_on_arrival(struct monitor *monitor, bool run)
{
    monitor->run_on_arrival = run;
    migration_run_on_arrival(monitor->context.migration, run);
}

int cmd_stop(struct call *call)
{
    struct machine *machine = call->monitor->context.machine;
    enum run_state state = machine_state(machine);
    if (state == RUN_INMIGRATE) {
        monitor_run_on_arrival(call->monitor, false);
        return 0;
    }
    if (handing_over(call->monitor))
        return err_set(&call->err, -EBUSY, "Migration is not finalized yet");
    if (state == RUN_RUNNING)
        machine_pause(machine, RUN_PAUSED);
    return 0;
}

int monitor_cont(struct monitor *monitor, struct err *err)
{
    struct machine *machine = monitor->context.machine;
    enum run_state state = machine_state(machine);
    struct migration_info info;
    bool force = false;
    migration_query(monitor->context.migration, &info);
    if (state == RUN_INMIGRATE && info.state != MIGRATION_UNRESOLVED) { /* in doubt it needs another word */
        monitor_run_on_arrival(monitor, true);
        return 0;
    }
    if (handing_over(monitor))
        return err_set(err, -EBUSY, "Migration is not finalized yet");
    int rc = migration_may_resume(monitor->context.migration, &force, err);
    return rc < 0 || state == RUN_RUNNING ? rc : machine_resume(machine, force, err);
}

int cmd_cont(struct call *call)
{
    return monitor_cont(call->monitor, &call->err);
}

int cmd_quit(struct call *call)
{
    monitor_quit(call->monitor);
    return 0;
}

int cmd_system_reset(struct call *call)
{
    struct machine *machine = call->monitor->context.machine;
    enum run_state state = machine_state(machine);
    if (state == RUN_INMIGRATE || state == RUN_POSTMIGRATE || handing_over(call->monitor))
        return err_set(&call->err, -EBUSY, "There is no guest to reset here now (%s)", run_state_name(state));
    machine_request(machine, REQUEST_RESET, 0);
    if (call->monitor->context.settle)
        call->monitor->context.settle(call->monitor->context.opaque);
    return 0;
}

int cmd_system_powerdown(struct call *call)
{
    monitor_emit(call->monitor, "POWERDOWN", NULL);
    if (call->out)
        fprintf(call->out, "This machine has no power button that the guest could see: shut it down from inside\n");
    return 0;
}
