/* IEEE 754 as the ISA demands it: flags, canonical NaN, all five rounding modes. Pure functions.
 *
 * Values are bit patterns; singles are passed unboxed (the decoder's caller checks NaN boxing). *flags is or-ed into:
 * NX 1, UF 2, OF 4, DZ 8, NV 16. rm is 0..4 (RNE RTZ RDN RUP RMM), already resolved from dynamic. Tininess is
 * detected after rounding; NaN results are canonical (0x7fc00000, 0x7ff8000000000000). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { FPU_NX = 1, FPU_UF = 2, FPU_OF = 4, FPU_DZ = 8, FPU_NV = 16 };
enum fpu_rm { FPU_RNE = 0, FPU_RTZ = 1, FPU_RDN = 2, FPU_RUP = 3, FPU_RMM = 4 };

#define FPU_NAN32 UINT32_C(0x7fc00000)
#define FPU_NAN64 UINT64_C(0x7ff8000000000000)

uint32_t fpu_add32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags);
uint32_t fpu_sub32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags);
uint32_t fpu_mul32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags);
uint32_t fpu_div32(uint32_t a, uint32_t b, unsigned rm, unsigned *flags);
uint32_t fpu_sqrt32(uint32_t a, unsigned rm, unsigned *flags);
uint32_t fpu_fma32(uint32_t a, uint32_t b, uint32_t c, unsigned rm, unsigned *flags); /* a*b+c, one rounding */
uint64_t fpu_add64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags);
uint64_t fpu_sub64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags);
uint64_t fpu_mul64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags);
uint64_t fpu_div64(uint64_t a, uint64_t b, unsigned rm, unsigned *flags);
uint64_t fpu_sqrt64(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_fma64(uint64_t a, uint64_t b, uint64_t c, unsigned rm, unsigned *flags);

uint32_t fpu_min32(uint32_t a, uint32_t b, unsigned *flags); /* minimumNumber: -0 < +0, sNaN raises NV */
uint32_t fpu_max32(uint32_t a, uint32_t b, unsigned *flags);
uint64_t fpu_min64(uint64_t a, uint64_t b, unsigned *flags);
uint64_t fpu_max64(uint64_t a, uint64_t b, unsigned *flags);

bool fpu_eq32(uint32_t a, uint32_t b, unsigned *flags); /* quiet */
bool fpu_lt32(uint32_t a, uint32_t b, unsigned *flags); /* signalling */
bool fpu_le32(uint32_t a, uint32_t b, unsigned *flags);
bool fpu_eq64(uint64_t a, uint64_t b, unsigned *flags);
bool fpu_lt64(uint64_t a, uint64_t b, unsigned *flags);
bool fpu_le64(uint64_t a, uint64_t b, unsigned *flags);

unsigned fpu_class32(uint32_t a); /* fclass bit mask */
unsigned fpu_class64(uint64_t a);

/* To integer: saturating, NV when out of range or NaN (NaN gives the largest). Results sign-extended to 64 bits. */
uint64_t fpu_f32_to_i32(uint32_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f32_to_u32(uint32_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f32_to_i64(uint32_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f32_to_u64(uint32_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f64_to_i32(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f64_to_u32(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f64_to_i64(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_f64_to_u64(uint64_t a, unsigned rm, unsigned *flags);

uint32_t fpu_i32_to_f32(uint64_t a, unsigned rm, unsigned *flags); /* low 32 bits used */
uint32_t fpu_u32_to_f32(uint64_t a, unsigned rm, unsigned *flags);
uint32_t fpu_i64_to_f32(uint64_t a, unsigned rm, unsigned *flags);
uint32_t fpu_u64_to_f32(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_i32_to_f64(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_u32_to_f64(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_i64_to_f64(uint64_t a, unsigned rm, unsigned *flags);
uint64_t fpu_u64_to_f64(uint64_t a, unsigned rm, unsigned *flags);

uint64_t fpu_f32_to_f64(uint32_t a, unsigned *flags); /* exact but for NaN */
uint32_t fpu_f64_to_f32(uint64_t a, unsigned rm, unsigned *flags);
