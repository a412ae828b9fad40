#pragma once

// The vectors of the CPU path that the including file is compiled for: QEVAL_VECTORS says whether it has any.

#if defined(__AVX2__)
#define QEVAL_VECTORS
#include "quant/arithmetic/integer/run/gemm_x86.h"
#include "quant/arithmetic/integer/run/vectors_x86.h"
#ifdef __AMX_INT8__
#include "quant/arithmetic/integer/run/gemm_tiles.h"
#endif
#elif defined(QEVAL_NEON)
#define QEVAL_VECTORS
#include "quant/arithmetic/integer/run/gemm_neon.h"
#include "quant/arithmetic/integer/run/vectors_neon.h"
#endif
