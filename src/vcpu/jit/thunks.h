/* The pieces of generated code that every region shares, made once per struct code. */
#pragma once
#include "vcpu/jit/code.h"

void thunks_make(struct code *code);
