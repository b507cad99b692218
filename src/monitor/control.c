/* Commands that make the machine run, stop, reset and end. */
#include <errno.h>

#include "monitor/monitor_priv.h"

/* A guest that is being handed over is the migration's: nobody else may run or stop it meanwhile. */
static bool handing_over(struct call *call)
{
    struct migration_info info;
    if (machine_state(call->monitor->context.machine) == RUN_FINISH_MIGRATE)
        return true;
    migration_query(call->monitor->context.migration, &info);
    return info.state == MIGRATION_DEVICE && !info.incoming;
}

/* Of a guest that is on its way here, whether it has set out already or not. */
static void set_run_on_arrival(struct call *call, bool run)
{
    call->monitor->run_on_arrival = run;
    migration_run_on_arrival(call->monitor->context.migration, run);
}

int cmd_stop(struct call *call)
{
    struct machine *machine = call->monitor->context.machine;
    enum run_state state = machine_state(machine);
    if (state == RUN_INMIGRATE) {
        set_run_on_arrival(call, false);
        return 0;
    }
    if (handing_over(call))
        return err_set(&call->err, -EBUSY, "Migration is not finalized yet");
    if (state == RUN_RUNNING)
        machine_pause(machine, RUN_PAUSED);
    return 0;
}

int cmd_cont(struct call *call)
{
    struct machine *machine = call->monitor->context.machine;
    enum run_state state = machine_state(machine);
    struct migration_info info;
    bool force = false;
    migration_query(call->monitor->context.migration, &info);
    if (state == RUN_INMIGRATE && info.state != MIGRATION_UNRESOLVED) { /* in doubt it needs another word */
        set_run_on_arrival(call, true);
        return 0;
    }
    if (handing_over(call))
        return err_set(&call->err, -EBUSY, "Migration is not finalized yet");
    int rc = migration_may_resume(call->monitor->context.migration, &force, &call->err);
    return rc < 0 || state == RUN_RUNNING ? rc : machine_resume(machine, force, &call->err);
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
    if (state == RUN_INMIGRATE || state == RUN_POSTMIGRATE || handing_over(call))
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
