/* The pieces of generated code that every region shares, made once per struct code. */
#pragma once
#include "vcpu/jit/code.h"
#include "vcpu/jit/emit.h"

void thunks_make(struct code *code);

/* On to the virtual address in RAX, if the hart's table knows it, else to exit_far; clobbers RCX. */
void thunks_jump_far(struct emit *e, const struct code *code);
