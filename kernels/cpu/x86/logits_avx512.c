/* logits_avx512.c - logits_body.h for AVX-512; run only where the device's isa allows it. */
#include "kernels/cpu/x86/vec_avx512.h"

#include "kernels/cpu/x86/logits_body.h"
