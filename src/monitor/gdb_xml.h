/* The target description that a debugger asks for ("Target Descriptions" in the GDB manual): which registers a hart has,
 * their names, sizes and numbers. The numbers are those of vcpu/debug.h. */
#pragma once
#include "base/bytes.h"

void gdb_xml_put(struct buf *out); /* appends the document, some 10 KB */
