/* activation_avx2.c - activation_body.h for AVX2; run only where the device's isa allows it. */
#include "kernels/cpu/x86/vec_avx2.h"

#include "kernels/cpu/x86/activation_body.h"
