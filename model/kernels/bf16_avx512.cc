#include <immintrin.h>

#include "model/kernels/bf16_impl.h"

namespace qeval::model {
namespace {

struct Avx512Bf16 {
  static constexpr int64_t width = 16;
  using Sums = __m512;
  using Words = __m512i;

  static Sums zero() { return _mm512_setzero_ps(); }
  static Sums load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Sums sums) { _mm512_storeu_ps(to, sums); }
  static Words load_words(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static Words broadcast_word(uint32_t word) { return _mm512_set1_epi32(static_cast<int32_t>(word)); }
  static Sums dot(Sums sums, Words a, Words b) {
    return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace

void bf16_gemm_avx512(const Bf16Gemm& g) {
  bf16_gemm<Avx512Bf16>(g);
}

}  // namespace qeval::model
