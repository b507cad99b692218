/* Host code as text, for `-d out_asm`, by libcapstone.
 *
 * The library is opened when somebody asks for this: it is three megabytes of tables, relocated one by one, which would else
 * weigh on every guest. Under the trace's lock. */
#pragma once
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

int trace_host_begin(struct err *err); /* -ENOTSUP: no library, or none for this host */
void trace_host_lines(FILE *out, const uint8_t *code, size_t bytes, uint64_t address);
void trace_host_end(void); /* without a begin, too */
