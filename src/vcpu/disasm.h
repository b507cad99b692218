/* Guest code as text: the assembler's syntax with ABI register names, no aliases ("addi a0,zero,1", not "li a0,1"). A
 * compressed instruction is shown as the one that it stands for. From the one table in ops.h: how operands look follows
 * from a row's format and opcode, so that a new row of a known kind needs nothing here. Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { DISASM_BYTES_MAX = 64 }; /* of any instruction's text, the NUL included */

/* raw: the instruction in its low 16 or 32 bits; pc: where it stands, for the targets of branches. Writes at most `size`
 * bytes with a NUL (size may be less than the text needs) and returns the instruction's length, 2 or 4. What is no
 * instruction becomes .2byte or .4byte. */
unsigned disasm(uint32_t raw, uint64_t pc, char *out, size_t size);

/* The name of a CSR, or NULL when there is none by that number. */
const char *disasm_csr(unsigned csr);
const char *disasm_x(unsigned reg); /* 0 .. 31: "zero", "ra" ... */
const char *disasm_f(unsigned reg); /* "ft0" ... */
