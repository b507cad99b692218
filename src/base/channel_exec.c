/* exec:COMMAND: /bin/sh -c with one socketpair as its standard input and output, so that a command which leads to
 * another of us is two-way. Its errors go where ours go. */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/channel_private.h"

extern char **environ;

/* Its own process group, so that close() reaches all of it; no signal blocked or ignored that we block or ignore. */
static int spawn_shell(const char *command, int fd, pid_t *pid)
{
    char *const argv[] = { "sh", "-c", (char *)(uintptr_t)command, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, pipe_only;

    sigemptyset(&none);
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    if (posix_spawn_file_actions_init(&actions)) {
        return -ENOMEM;
    }
    if (posix_spawnattr_init(&attributes)) {
        posix_spawn_file_actions_destroy(&actions);
        return -ENOMEM;
    }
    int failed = posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
    failed = failed ? failed : posix_spawnattr_setpgroup(&attributes, 0);
    failed = failed ? failed : posix_spawnattr_setsigmask(&attributes, &none);
    failed = failed ? failed : posix_spawnattr_setsigdefault(&attributes, &pipe_only);
    failed = failed ? failed
                    : posix_spawnattr_setflags(&attributes,
                                               POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    failed = failed ? failed : posix_spawn(pid, "/bin/sh", &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return -failed;
}

int channel_exec_open(const char *rest, const char *uri, struct channel **out, struct err *err)
{
    struct channel_fd *c;
    int pair[2];
    pid_t pid = -1;

    if (!*rest) {
        return err_set(err, -EINVAL, "exec: needs a command");
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return err_set_errno(err, -errno, "cannot make a socketpair for %s", uri);
    }
    int ret = channel_fd_new(pair[0], pair[0], true, uri, &c, err);
    if (ret < 0) {
        close(pair[1]);
        return ret;
    }
    ret = spawn_shell(rest, pair[1], &pid);
    close(pair[1]);
    if (ret < 0) {
        channel_close(&c->channel);
        return err_set_errno(err, ret, "cannot start \"%s\"", rest);
    }
    c->pid = pid;
    c->pidfd = pidfd_open(pid, 0);
    if (c->pidfd < 0) {
        ret = -errno;
        channel_close(&c->channel);
        return err_set_errno(err, ret, "cannot follow \"%s\"", rest);
    }
    *out = &c->channel;
    return 0;
}
