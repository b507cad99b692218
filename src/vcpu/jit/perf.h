/* Generated code for profilers: `perf` finds names for it in a map (/tmp/perf-PID.map) or in a dump with the code itself
 * (jit-PID.dump, the jitdump format of the Linux sources: tools/perf/Documentation/jitdump-specification.txt), which
 * `perf record -k mono` and `perf inject --jit` join with the samples.
 *
 * Started before the first vCPU runs and stopped after the last has ended; perf_code() in between from any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

extern bool perf_wanted; /* fixed between start and stop: somebody wants to hear of code */

static inline bool perf_on(void)
{
    return __builtin_expect(perf_wanted, 0);
}

/* The map goes to /tmp, where perf looks; the dump to the present folder. Nothing to do when neither is asked for. */
int perf_start(bool map, bool dump, struct err *err);
int perf_stop(struct err *err); /* -errno when not everything could be written; 0 when nothing was started */

/* For `if (perf_on())`: `bytes` of host code that stand at `code` where they run (readable there), made of guest code at
 * gpa, which was seen at va. A place that is used again is simply told again. */
void perf_code(const void *code, size_t bytes, uint64_t gpa, uint64_t va);
