#include "vcpu/trace_host.h"

#include <errno.h>

#ifdef GODWIT_CAPSTONE
#include <capstone/capstone.h>
#include <dlfcn.h>
#include <inttypes.h>

#define TEXT_OF(number) #number
#define SONAME(major)   "libcapstone.so." TEXT_OF(major)

/* Named as in the library, of the types that its header says. */
#define FUNCTIONS(X) X(cs_open) X(cs_close) X(cs_option) X(cs_malloc) X(cs_free) X(cs_disasm_iter) X(cs_strerror)

static struct {
    void *library;
    csh handle;
#define POINTER(name) __typeof__(name) *name;
    FUNCTIONS(POINTER)
#undef POINTER
} host;

static int open_library(struct err *err)
{
    host.library = dlopen(SONAME(CS_API_MAJOR), RTLD_NOW | RTLD_LOCAL);
    if (!host.library)
        return err_set(err, -ENOTSUP, "-d out_asm needs the library that this godwit was built with: %s", dlerror());
#define LOOK_UP(name)                                                                                                  \
    host.name = (__typeof__(host.name))dlsym(host.library, #name);                                                     \
    if (!host.name)                                                                                                    \
        return err_set(err, -ENOTSUP, "-d out_asm: %s has no %s", SONAME(CS_API_MAJOR), #name);
    FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return 0;
}

static cs_err open_handle(void)
{
#if defined(__x86_64__)
    cs_err failed = host.cs_open(CS_ARCH_X86, CS_MODE_64, &host.handle);
    return failed != CS_ERR_OK ? failed : host.cs_option(host.handle, CS_OPT_SYNTAX, CS_OPT_SYNTAX_ATT);
#elif defined(__aarch64__)
    return host.cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &host.handle);
#else
    return CS_ERR_ARCH;
#endif
}

int trace_host_begin(struct err *err)
{
    int code = open_library(err);

    if (code == 0) {
        cs_err failed = open_handle();
        if (failed != CS_ERR_OK)
            code = err_set(err, -ENOTSUP, "-d out_asm: libcapstone: %s", host.cs_strerror(failed));
    }
    if (code < 0)
        trace_host_end();
    return code;
}

void trace_host_end(void)
{
    if (host.handle)
        host.cs_close(&host.handle);
    if (host.library)
        dlclose(host.library);
    host.handle = 0;
    host.library = NULL;
}

void trace_host_lines(FILE *out, const uint8_t *code, size_t bytes, uint64_t address)
{
    cs_insn *insn = host.cs_malloc(host.handle);
    while (insn && bytes > 0) {
        const uint8_t *before = code;
        if (!host.cs_disasm_iter(host.handle, &code, &bytes, &address, insn)) { /* data, or newer than the library */
            fprintf(out, "  0x%016" PRIx64 ":  .byte 0x%02x\n", address, *code);
            code++, bytes--, address++;
            continue;
        }
        fprintf(out, "  0x%016" PRIx64 ":  %s %s\n", address - (uint64_t)(code - before), insn->mnemonic, insn->op_str);
    }
    if (insn)
        host.cs_free(insn, 1);
}
#else
int trace_host_begin(struct err *err)
{
    return err_set(err, -ENOTSUP, "out_asm is not there: this godwit was built without libcapstone");
}

void trace_host_end(void)
{
}

void trace_host_lines(FILE *out, const uint8_t *code, size_t bytes, uint64_t address)
{
    (void)out, (void)code, (void)bytes, (void)address; /* nobody has begun */
}
#endif
