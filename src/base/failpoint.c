#include "base/failpoint.h"

#include <ctype.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum action { ACTION_NONE, ACTION_KILL, ACTION_STOP, ACTION_STALL, ACTION_ERROR, ACTIONS };

static const char *const action_names[ACTIONS] = {
    [ACTION_KILL] = "kill", [ACTION_STOP] = "stop", [ACTION_STALL] = "stall", [ACTION_ERROR] = "error"
};

static const struct {
    const char *name;
    bool fails;
    const char *what;
} points[FAILPOINT_COUNT] = {
#define X(id, name, fails, what) { name, fails, what },
    FAILPOINTS(X)
#undef X
};

static struct {
    /* fixed after arming */
    enum action action;
    unsigned at;
    /* atomic */
    _Atomic unsigned met;
} armed[FAILPOINT_COUNT];

_Atomic bool failpoint_armed;

static sem_t go_on; /* posted by SIGCONT */

static void on_continue(int number)
{
    (void)number;
    int kept = errno;
    sem_post(&go_on);
    errno = kept;
}

static void tell(enum failpoint point)
{
    char line[160];
    int bytes = snprintf(line, sizeof(line), "godwit: fault point %s, time %u: %s\n", points[point].name,
                         armed[point].at, action_names[armed[point].action]);
    if (write(STDERR_FILENO, line, (size_t)bytes) != bytes)
        return; /* nobody reads what we say */
}

int failpoint_met(enum failpoint point)
{
    /* Relaxed: a count, nothing behind it. */
    if (armed[point].action == ACTION_NONE ||
        atomic_fetch_add_explicit(&armed[point].met, 1, memory_order_relaxed) + 1 != armed[point].at)
        return 0;
    tell(point);
    switch (armed[point].action) {
    case ACTION_KILL: kill(getpid(), SIGKILL); break;
    case ACTION_STOP: kill(getpid(), SIGSTOP); break;
    case ACTION_STALL:
        while (sem_wait(&go_on) < 0 && errno == EINTR)
            continue;
        break;
    case ACTION_ERROR: return -EIO;
    default: break;
    }
    return 0;
}

int failpoint_err(enum failpoint point, struct err *err)
{
    int rc = failpoint(point);
    return rc < 0 ? err_set(err, rc, "fault point %s", points[point].name) : 0;
}

/* --- arming --------------------------------------------------------------------------------------------------- */

static int find_point(const char *name, size_t bytes)
{
    for (int i = 0; i < FAILPOINT_COUNT; i++)
        if (strlen(points[i].name) == bytes && memcmp(points[i].name, name, bytes) == 0)
            return i;
    return -ENOENT;
}

static enum action find_action(const char *name)
{
    for (int i = ACTION_KILL; i < ACTIONS; i++)
        if (strcmp(action_names[i], name) == 0)
            return (enum action)i;
    return ACTION_NONE;
}

static void catch_continue(void)
{
    static bool caught;
    if (caught)
        return;
    caught = true;
    sem_init(&go_on, 0, 0);
    struct sigaction action = { .sa_handler = on_continue, .sa_flags = SA_RESTART };
    sigaction(SIGCONT, &action, NULL);
}

int failpoint_arm(const char *text, struct err *err)
{
    const char *rest = strchrnul(text, ':');
    int point = find_point(text, (size_t)(rest - text));
    if (point < 0)
        return err_set(err, -EINVAL, "there is no fault point '%.*s' (-fault help lists them)", (int)(rest - text),
                       text);
    unsigned long at = 1;
    enum action action = ACTION_KILL;
    if (*rest && isdigit((unsigned char)rest[1])) {
        char *end;
        at = strtoul(rest + 1, &end, 10);
        if ((*end && *end != ':') || at < 1 || at > UINT32_MAX)
            return err_set(err, -EINVAL, "'%s': the time is not a number from 1 on", text);
        rest = end;
    }
    if (*rest)
        action = find_action(rest + 1);
    if (action == ACTION_NONE)
        return err_set(err, -EINVAL, "'%s' is not one of kill, stop, stall, error", rest + 1);
    if (action == ACTION_ERROR && !points[point].fails)
        return err_set(err, -EINVAL, "nothing can fail at %s: kill, stop or stall there", points[point].name);
    if (action == ACTION_STALL)
        catch_continue();
    armed[point].action = action;
    armed[point].at = (unsigned)at;
    atomic_store_explicit(&armed[point].met, 0, memory_order_relaxed);
    atomic_store_explicit(&failpoint_armed, true, memory_order_relaxed);
    return 0;
}

void failpoint_help(FILE *out)
{
    fprintf(out,
            "-fault POINT[:N][:ACTION] at the N-th time (default 1): kill, stop (both by signal), stall (this thread, "
            "until SIGCONT), or error where that can be\n\n");
    for (int i = 0; i < FAILPOINT_COUNT; i++)
        fprintf(out, "  %-18s %-6s %s\n", points[i].name, points[i].fails ? "error" : "", points[i].what);
}
