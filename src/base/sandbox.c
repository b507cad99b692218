#include "base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- system calls ---------------------------------------------------------------------------------------------- */

/* What no thread needs that reads a stream. A name that this machine does not know is passed over. */
static const int refused[] = {
    /* programs and other processes */
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(ptrace),
    SCMP_SYS(kcmp),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(process_madvise),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(tkill),
    SCMP_SYS(rt_sigqueueinfo),
    SCMP_SYS(rt_tgsigqueueinfo),
    /* new lines to anywhere */
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(memfd_create),
    SCMP_SYS(userfaultfd),
    /* the system itself */
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsmount),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(unshare),
    SCMP_SYS(setns),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(acct),
    SCMP_SYS(quotactl),
    SCMP_SYS(settimeofday),
    SCMP_SYS(clock_settime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname),
    SCMP_SYS(personality),
    SCMP_SYS(syslog),
    /* another user */
    SCMP_SYS(setuid),
    SCMP_SYS(setgid),
    SCMP_SYS(setreuid),
    SCMP_SYS(setregid),
    SCMP_SYS(setresuid),
    SCMP_SYS(setresgid),
    SCMP_SYS(setgroups),
    SCMP_SYS(setfsuid),
    SCMP_SYS(setfsgid),
    SCMP_SYS(capset),
};

/* What opens, makes, names and removes files. */
static const int refused_to_workers[] = {
    SCMP_SYS(open),     SCMP_SYS(openat),  SCMP_SYS(openat2),   SCMP_SYS(creat),     SCMP_SYS(unlink),
    SCMP_SYS(unlinkat), SCMP_SYS(rename),  SCMP_SYS(renameat),  SCMP_SYS(renameat2), SCMP_SYS(link),
    SCMP_SYS(linkat),   SCMP_SYS(symlink), SCMP_SYS(symlinkat), SCMP_SYS(mkdir),     SCMP_SYS(mkdirat),
    SCMP_SYS(rmdir),    SCMP_SYS(mknod),   SCMP_SYS(mknodat),   SCMP_SYS(truncate),  SCMP_SYS(chmod),
    SCMP_SYS(fchmodat), SCMP_SYS(chown),   SCMP_SYS(fchownat),  SCMP_SYS(accept),    SCMP_SYS(accept4),
};

static int refuse_all(scmp_filter_ctx filter, const int *call, size_t calls)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < calls; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call[i], 0);
        if (result == -EDOM || result == -EFAULT) /* not a call of this machine */
            result = 0;
    }
    return result;
}

/* Threads may be started, processes not: by clone's flags, which clone3 keeps where a filter cannot see them; the C library
 * takes clone where there is no clone3. Signals go to this process alone. */
static int refuse_by_argument(scmp_filter_ctx filter)
{
    int result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(kill), 1,
                                  SCMP_A0(SCMP_CMP_NE, (scmp_datum_t)getpid()));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(tgkill), 1,
                                  SCMP_A0(SCMP_CMP_NE, (scmp_datum_t)getpid()));
    return result;
}

static int confine_calls(enum sandbox_kind kind, struct err *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter)
        return err_set(err, -ENOMEM, "no memory for a filter of system calls");
    int result = refuse_all(filter, refused, sizeof(refused) / sizeof(refused[0]));
    if (result == 0 && kind == SANDBOX_WORKER)
        result = refuse_all(filter, refused_to_workers, sizeof(refused_to_workers) / sizeof(refused_to_workers[0]));
    if (result == 0)
        result = refuse_by_argument(filter);
    if (result == 0)
        result = seccomp_load(filter); /* sets no_new_privs too */
    seccomp_release(filter);
    return result < 0 ? err_set_errno(err, result, "seccomp") : 0;
}

/* --- files ------------------------------------------------------------------------------------------------------ */

/* Rights of the first Landlock (Linux 5.13), which every later one has. */
#define FILE_RIGHTS                                                                                                    \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |                       \
     LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                    \
     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                        \
     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                     \
     LANDLOCK_ACCESS_FS_MAKE_SYM)
#define OPEN_RIGHTS (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE)
#define FOLDER_RIGHTS                                                                                                  \
    (OPEN_RIGHTS | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG)

static int allow(int ruleset, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = { .allowed_access = rights };
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return -errno;
    long result = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int code = result < 0 ? -errno : 0;
    close(rule.parent_fd);
    return code;
}

static int allow_kept(int ruleset, const struct sandbox_kept *kept, struct err *err)
{
    int result = kept->folder ? allow(ruleset, kept->folder, FOLDER_RIGHTS) : 0;
    if (result < 0)
        return err_set_errno(err, result, "landlock: %s", kept->folder);
    for (unsigned i = 0; i < kept->files; i++) {
        result = allow(ruleset, kept->file[i], OPEN_RIGHTS);
        if (result < 0 && result != -ENOENT)
            return err_set_errno(err, result, "landlock: %s", kept->file[i]);
    }
    result = kept->remove_in[0] ? allow(ruleset, kept->remove_in, LANDLOCK_ACCESS_FS_REMOVE_FILE) : 0;
    return result < 0 ? err_set_errno(err, result, "landlock: %s", kept->remove_in) : 0;
}

static int confine_files(const struct sandbox_kept *kept, struct err *err)
{
    struct landlock_ruleset_attr attr = { .handled_access_fs = FILE_RIGHTS };
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset < 0)
        return err_set_errno(err, -errno, "landlock");
    int result = kept ? allow_kept(ruleset, kept, err) : 0;
    if (result == 0 &&
        (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, ruleset, 0) < 0))
        result = err_set_errno(err, -errno, "landlock");
    close(ruleset);
    return result;
}

int sandbox_enter(enum sandbox_kind kind, const struct sandbox_kept *kept, struct err *err)
{
    /* Both are tried: a kernel may have one and not the other. Files first, which need a file to be opened. */
    struct err files = { 0 }, calls = { 0 };
    confine_files(kept, &files);
    confine_calls(kind, &calls);
    const struct err *first = files.code ? &files : &calls;
    return first->code ? err_set(err, first->code, "the sandbox: %s", first->text) : 0;
}
