#include "vcpu/jit/perf.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"

#if defined(__x86_64__)
enum { PERF_MACHINE = EM_X86_64 };
#elif defined(__aarch64__)
enum { PERF_MACHINE = EM_AARCH64 };
#else
enum { PERF_MACHINE = EM_NONE };
#endif

enum { DUMP_MAGIC = 0x4a695444, DUMP_VERSION = 1, DUMP_CODE_LOAD = 0, DUMP_CODE_CLOSE = 3, NAME_BYTES_MAX = 64 };

/* In the host's byte order: the magic number tells the reader. */
struct dump_header {
    uint32_t magic, version, total_size, elf_mach, pad, pid;
    uint64_t timestamp, flags;
};

struct dump_record {
    uint32_t id, total_size;
    uint64_t timestamp;
};

struct dump_load {
    struct dump_record record;
    uint32_t pid, tid;
    uint64_t vma, code_addr, code_size, code_index;
    /* name with its NUL, code */
};
_Static_assert(sizeof(struct dump_header) == 40 && sizeof(struct dump_record) == 16 && sizeof(struct dump_load) == 56,
               "as the format has them");

bool perf_wanted;

static struct {
    /* fixed between start and stop */
    FILE *map, *dump; /* NULL: not asked for */
    void *mark;       /* a mapping of the dump that perf records: so it learns of the file */
    size_t mark_bytes;
    struct lock lock;
    /* under lock */
    uint64_t codes;
    int failed; /* first errno */
} perf;

/* Under the lock, or before others know of it. */
static void put(FILE *file, const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, file) != bytes && !perf.failed)
        perf.failed = errno ? errno : EIO;
}

static int open_map(struct err *err)
{
    char path[64];
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    /* a folder that everybody writes to: never through somebody else's link */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    perf.map = fd < 0 ? NULL : fdopen(fd, "w");
    if (!perf.map) {
        int result = err_set_errno(err, -errno, "cannot write %s", path);
        if (fd >= 0)
            close(fd);
        return result;
    }
    setvbuf(perf.map, NULL, _IOLBF, 0); /* perf reads it while we run */
    return 0;
}

static int open_dump(struct err *err)
{
    char path[64];
    struct dump_header header = {
        .magic = DUMP_MAGIC,
        .version = DUMP_VERSION,
        .total_size = sizeof(header),
        .elf_mach = PERF_MACHINE,
        .pid = (uint32_t)getpid(),
        .timestamp = (uint64_t)clock_now_ns(),
    };
    snprintf(path, sizeof(path), "jit-%d.dump", (int)getpid());
    perf.dump = fopen(path, "w+e");
    if (!perf.dump)
        return err_set_errno(err, -errno, "cannot write %s", path);
    put(perf.dump, &header, sizeof(header));
    if (fflush(perf.dump) != 0)
        return err_set_errno(err, -errno, "cannot write %s", path);
    perf.mark_bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *mark = mmap(NULL, perf.mark_bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(perf.dump), 0);
    if (mark == MAP_FAILED)
        return err_set_errno(err, -errno, "cannot map %s as code, so perf would not find it", path);
    perf.mark = mark;
    return 0;
}

static bool close_file(FILE *file)
{
    return !file || fclose(file) == 0;
}

static void forget(void)
{
    if (perf.mark)
        munmap(perf.mark, perf.mark_bytes);
    lock_destroy(&perf.lock);
    memset(&perf, 0, sizeof(perf));
}

int perf_start(bool map, bool dump, struct err *err)
{
    assert(!perf_wanted);
    if (!map && !dump)
        return 0;
    lock_init(&perf.lock, LOCK_LEAF);
    int result = map ? open_map(err) : 0;
    if (result == 0 && dump)
        result = open_dump(err);
    if (result < 0) {
        close_file(perf.map);
        close_file(perf.dump);
        forget();
        return result;
    }
    perf_wanted = true;
    return 0;
}

int perf_stop(struct err *err)
{
    struct dump_record end = { .id = DUMP_CODE_CLOSE, .total_size = sizeof(end) };
    if (!perf_wanted)
        return 0;
    perf_wanted = false;
    end.timestamp = (uint64_t)clock_now_ns();
    if (perf.dump)
        put(perf.dump, &end, sizeof(end));
    int failed = perf.failed;
    if (!close_file(perf.map) && !failed)
        failed = errno;
    if (!close_file(perf.dump) && !failed)
        failed = errno;
    forget();
    return failed ? err_set_errno(err, -failed, "not all of what perf needs could be written") : 0;
}

static void dump_code(const void *code, size_t bytes, const char *name)
{
    size_t name_bytes = strlen(name) + 1;
    struct dump_load load = {
        .record = { .id = DUMP_CODE_LOAD, .total_size = (uint32_t)(sizeof(load) + name_bytes + bytes) },
        .pid = (uint32_t)getpid(),
        .tid = (uint32_t)syscall(SYS_gettid),
        .vma = (uint64_t)(uintptr_t)code,
        .code_addr = (uint64_t)(uintptr_t)code,
        .code_size = bytes,
        .code_index = perf.codes,
    };
    load.record.timestamp = (uint64_t)clock_now_ns();
    put(perf.dump, &load, sizeof(load));
    put(perf.dump, name, name_bytes);
    put(perf.dump, code, bytes);
}

void perf_code(const void *code, size_t bytes, uint64_t gpa, uint64_t va)
{
    char name[NAME_BYTES_MAX];
    assert(bytes <= UINT32_MAX / 2);
    snprintf(name, sizeof(name), "guest_%" PRIx64 "@%" PRIx64, va, gpa);
    lock(&perf.lock);
    perf.codes++;
    if (perf.map && fprintf(perf.map, "%" PRIxPTR " %zx %s\n", (uintptr_t)code, bytes, name) < 0 && !perf.failed)
        perf.failed = errno ? errno : EIO;
    if (perf.dump)
        dump_code(code, bytes, name);
    unlock(&perf.lock);
}
