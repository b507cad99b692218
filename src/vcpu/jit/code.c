#include "vcpu/jit/code.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vcpu/jit/thunks.h"

int code_init(struct code *code, size_t bytes, struct err *err)
{
    int fd = memfd_create("godwit-code", MFD_CLOEXEC);
    void *writable = MAP_FAILED, *executable = MAP_FAILED;

    *code = (struct code){ .bytes = bytes };
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0) {
        writable = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        executable = mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    int failed = writable == MAP_FAILED || executable == MAP_FAILED ? -errno : 0;
    if (fd >= 0)
        close(fd);
    code->writable = writable == MAP_FAILED ? NULL : writable;
    code->executable = executable == MAP_FAILED ? NULL : executable;
    if (failed) {
        code_free(code);
        return err_set_errno(err, failed, "mapping %zu MiB for generated code", bytes >> 20);
    }
    thunks_make(code);
    return 0;
}

void code_free(struct code *code)
{
    if (code->writable)
        munmap(code->writable, code->bytes);
    if (code->executable)
        munmap((void *)(uintptr_t)code->executable, code->bytes);
    code->writable = NULL;
    code->executable = NULL;
}

/* Release: whoever jumps there finds the code that was written before. Instruction fetch takes aligned stores as a
 * whole, and this host keeps instructions coherent with stores through another mapping. */
void code_patch_jump(const struct code *code, const void *site, const void *target)
{
    int32_t distance = (int32_t)((const uint8_t *)target - ((const uint8_t *)site + 4));

    assert((uintptr_t)site % 4 == 0);
    __atomic_store_n((int32_t *)(void *)code_writable(code, site), distance, __ATOMIC_RELEASE);
}

void code_patch_head(const struct code *code, const void *head, const void *target)
{
    int32_t distance = (int32_t)((const uint8_t *)target - ((const uint8_t *)head + 5));
    uint8_t bytes[8], *at = code_writable(code, head);
    uint64_t word;

    assert((uintptr_t)head % 8 == 0);
    memcpy(bytes, at, 8);
    bytes[0] = 0xe9; /* jmp */
    memcpy(bytes + 1, &distance, 4);
    memcpy(&word, bytes, 8);
    __atomic_store_n((uint64_t *)(void *)at, word, __ATOMIC_RELEASE);
}
