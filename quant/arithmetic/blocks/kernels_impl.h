#pragma once

// Products of block codes, written once over lanes.h and compiled once per CPU path (kernels.h has the
// contracts).

#include <utility>

#include "quant/arithmetic/blocks/kernels.h"
#include "quant/arithmetic/blocks/lanes.h"

namespace qeval::quant {
namespace {

using Int = Lanes::Int;
using Float = Lanes::Float;

constexpr int64_t kQuadBytes = 4 * kPanelColumns;

inline int32_t load_int32(const void* from) {
  int32_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

/// What a form's kernel is compiled for.
template <PanelForm::Codes CODES, int LARGEST, int SUB_BLOCK, bool MINIMA, bool PAIRS = false>
struct FormTraits {
  static constexpr PanelForm::Codes kCodes = CODES;
  static constexpr int kLargest = LARGEST, kSubBlock = SUB_BLOCK;
  static constexpr bool kMinima = MINIMA, kPairs = PAIRS;
  static constexpr int kSumQuads = SUB_BLOCK == 16 || PAIRS ? 4 : 8;  ///< under one sum of products
  static constexpr int64_t kCodeBytes =
      (SUB_BLOCK == 0 ? kRun : 256) * kPanelColumns / (CODES == PanelForm::Codes::bytes ? 1 : 2);
  static constexpr int64_t kSubBlocks = SUB_BLOCK == 0 ? 0 : 256 / (SUB_BLOCK == 0 ? 1 : SUB_BLOCK);
  static constexpr int64_t kRunBytes = kCodeBytes / (SUB_BLOCK == 0 ? 1 : 8);
  static constexpr int64_t kScales = kCodeBytes + kSubBlocks * kPanelColumns * (MINIMA ? 2 : 1);
  static constexpr int64_t kBlockBytes = kScales + kPanelColumns * (MINIMA || PAIRS ? 4 : 2);
};

/// Exact sums of products of one column a lane.
template <typename Form>
struct Sum {
  Int sums;

#ifdef QEVAL_QUAD_PRODUCTS
  template <int QUAD, typename L = Lanes>  // a parameter, as not all have less_128()
  void add(Int codes, Int x) {
    if constexpr (L::kSignedBytes && Form::kLargest > 127) codes = L::less_128(codes);
    sums = L::quad_products(sums, codes, x);
  }
#else
  // 16-bit lanes hold so many quads' products: 2 · largest · 127 each.
  static constexpr int kFit = Form::kLargest <= 15   ? 8
                              : Form::kLargest <= 31 ? 4
                              : Form::kLargest <= 63 ? 2
                                                     : 1;  // 127, or signed
  static constexpr int kGroup = kFit < Form::kSumQuads ? kFit : Form::kSumQuads;
  Int part;

  template <int QUAD>
  void add(Int codes, Int x) {
    const Int products =
        Form::kLargest > 127 ? Lanes::signed_products(codes, x) : Lanes::byte_products(codes, x);
    part = QUAD % kGroup == 0 ? products : Lanes::add16(part, products);
    if (QUAD % kGroup == kGroup - 1) sums = Lanes::add_pairs(sums, part);
  }
#endif
};

/// The codes of quad QUAD of a run.
template <typename Form, int QUAD>
inline Int load_codes(const uint8_t* run, [[maybe_unused]] Int table) {
  if constexpr (Form::kCodes == PanelForm::Codes::bytes) {
    return Lanes::load(run + QUAD * kQuadBytes);
  } else {
    const Int both = Lanes::load(run + QUAD % 4 * kQuadBytes);
    const Int nibbles = QUAD < 4 ? Lanes::low_nibbles(both) : Lanes::high_nibbles(both);
    return Form::kCodes == PanelForm::Codes::table ? Lanes::look_up(table, nibbles) : nibbles;
  }
}

/// Sums of quads FIRST, FIRST + 1 … of a run: [ROWS, VECTORS].
template <typename Form, int FIRST, int ROWS, int VECTORS, size_t... QUAD>
inline void add_run(std::index_sequence<QUAD...>, Sum<Form> (&sums)[ROWS][VECTORS], const uint8_t* run,
                    Int table, const int8_t* x, int64_t ld) {
  const auto add_quad = [&]<int Q>(std::integral_constant<int, Q>) __attribute__((always_inline)) {
    Int codes[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v)
      codes[v] = load_codes<Form, FIRST + Q>(run + v * 4 * Lanes::kCount, table);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const Int four = Lanes::all(load_int32(x + r * ld + 4 * (FIRST + Q)));
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sums[r][v].template add<Q>(codes[v], four);
    }
  };
  (add_quad(std::integral_constant<int, static_cast<int>(QUAD)>()), ...);
}

/// Row r's part of something that every row has.
template <typename T>
inline const T* at_row(const T* first, int64_t r, int64_t ld) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) + r * ld);
}

inline Float load_scale(const PanelForm& form, const uint8_t* from) {
  return form.bf16_scales ? Lanes::widen_bf16(from) : Lanes::widen_f16(from);
}

/// ROWS rows by VECTORS vectors of columns from `column` on.
template <typename Form, int ROWS, int VECTORS>
inline void product_of(const BlockProduct& p, int64_t row, int64_t column, int32_t offset) {
  const Int table = Lanes::table(p.form->table);
  [[maybe_unused]] const Float unit = Lanes::all(p.form->unit);
  const int8_t* x = p.codes + row * p.ld;
  const float* scales = at_row(p.scales, row, p.ld);
  const uint8_t* panel = p.panel;
  float* c = p.c + row * p.ldc + column;
  Float totals[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v)
      totals[r][v] = p.accumulate ? Lanes::load(c + r * p.ldc + v * Lanes::kCount) : Lanes::all(0.0F);
  }
  for (int64_t b = 0; b < p.blocks; ++b, panel += Form::kBlockBytes, x += Form::kSubBlock == 0 ? kRun : 256) {
    const uint8_t* codes = panel + 4 * column;
    const uint8_t* scale_at = panel + Form::kScales + 2 * column;
    const uint8_t* minimum_at = scale_at + 2 * kPanelColumns;
    if constexpr (Form::kSubBlock == 0) {
      const auto add_part = [&]<int PART>(std::integral_constant<int, PART>) __attribute__((always_inline)) {
        Sum<Form> sums[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
          const int16_t* own = at_row(static_cast<const int16_t*>(p.sums), row + r, p.ld) + 2 * b;
          const int32_t base = Form::kMinima ? 0 : -offset * (Form::kPairs ? own[PART] : own[0] + own[1]);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) sums[r][v].sums = Lanes::all(base);
        }
        add_run<Form, PART * Form::kSumQuads>(std::make_index_sequence<Form::kSumQuads>(), sums, codes, table,
                                              x, p.ld);
        const uint8_t* part_scale_at = scale_at + PART * 2 * kPanelColumns;
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
          const Float scale = load_scale(*p.form, part_scale_at + v * 2 * Lanes::kCount);
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; ++r) {
            const Float factor = Lanes::multiply(scale, Lanes::all(at_row(scales, r, p.ld)[b]));
            Float term = Lanes::multiply(Lanes::to_float(sums[r][v].sums), factor);
            if constexpr (Form::kMinima) {
              const float sum = at_row(static_cast<const float*>(p.sums), row + r, p.ld)[b];
              term = Lanes::add(term, Lanes::multiply(Lanes::widen_f16(minimum_at + v * 2 * Lanes::kCount),
                                                      Lanes::all(sum)));
            }
            totals[r][v] = Lanes::add(totals[r][v], term);
          }
        }
      };
      add_part(std::integral_constant<int, 0>());
      if constexpr (Form::kPairs) add_part(std::integral_constant<int, 1>());
    } else {
      const uint8_t* steps_at = panel + Form::kCodeBytes + column;
      const int16_t* input_sums = static_cast<const int16_t*>(p.sums);
      /// Of rows, the sum of an input's sub-block.
      const auto input_sum = [&](int r, int64_t s) {
        const int16_t* own = at_row(input_sums, row + r, p.ld) + 16 * b;
        return Form::kSubBlock == 16 ? int32_t{own[s]} : own[2 * s] + own[2 * s + 1];
      };
      Int stepped[ROWS][VECTORS];
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) stepped[r][v] = Lanes::all(int32_t{0});
      }
      const auto add_sub_block = [&]<int FIRST>(std::integral_constant<int, FIRST>, int64_t s,
                                                const uint8_t* run, const int8_t* own)
          __attribute__((always_inline)) {
        Sum<Form> sums[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
          const int32_t base = Form::kMinima ? 0 : -offset * input_sum(r, s);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) sums[r][v].sums = Lanes::all(base);
        }
        add_run<Form, FIRST>(std::make_index_sequence<Form::kSumQuads>(), sums, run, table, own, p.ld);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
          const Int step =
              Lanes::widen(reinterpret_cast<const int8_t*>(steps_at + s * kPanelColumns + v * Lanes::kCount));
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; ++r)
            stepped[r][v] = Lanes::add(stepped[r][v], Lanes::multiply(sums[r][v].sums, step));
        }
      };
      for (int64_t i = 0; i < 8; ++i) {
        const uint8_t* run = codes + i * Form::kRunBytes;
        const int8_t* own = x + i * kRun;
        if constexpr (Form::kSubBlock == 16) {
          add_sub_block(std::integral_constant<int, 0>(), 2 * i, run, own);
          add_sub_block(std::integral_constant<int, 4>(), 2 * i + 1, run, own);
        } else {
          add_sub_block(std::integral_constant<int, 0>(), i, run, own);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        const Float scale = Lanes::multiply(Lanes::widen_f16(scale_at + v * 2 * Lanes::kCount), unit);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
          const Float factor = Lanes::multiply(scale, Lanes::all(at_row(scales, r, p.ld)[b]));
          totals[r][v] = Lanes::add(totals[r][v], Lanes::multiply(Lanes::to_float(stepped[r][v]), factor));
        }
        if constexpr (Form::kMinima) {
          const uint8_t* least_at =
              panel + Form::kCodeBytes + Form::kSubBlocks * kPanelColumns + 2 * (column + v * Lanes::kCount);
          const Float minimum = Lanes::widen_f16(minimum_at + v * 2 * Lanes::kCount);
          Int least[ROWS];
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; ++r) least[r] = Lanes::all(int32_t{0});
          for (int64_t s = 0; s < Form::kSubBlocks; s += 2) {
            const Int pairs = Lanes::widen_pairs(least_at + s * kPanelColumns);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
              const uint32_t both = (static_cast<uint32_t>(input_sum(r, s)) & 0xFFFFU) |
                                    static_cast<uint32_t>(input_sum(r, s + 1)) << 16U;
              least[r] =
                  Lanes::add(least[r], Lanes::pair_products(pairs, Lanes::all(static_cast<int32_t>(both))));
            }
          }
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; ++r) {
            const Float factor = Lanes::multiply(minimum, Lanes::all(at_row(scales, r, p.ld)[b]));
            totals[r][v] = Lanes::subtract(totals[r][v], Lanes::multiply(Lanes::to_float(least[r]), factor));
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) Lanes::store(c + r * p.ldc + v * Lanes::kCount, totals[r][v]);
  }
}

template <typename Form>
void product_form(const BlockProduct& p) {
  constexpr int kVectors = static_cast<int>(Lanes::kVectors), kRows = static_cast<int>(Lanes::kRows);
  // Where codes that need all eight bits are read as signed, they are less by 128 already.
  const int32_t offset = p.form->offset - (Lanes::kSignedBytes && Form::kLargest > 127 ? 128 : 0);
  for (int64_t column = 0; column < kPanelColumns; column += kVectors * Lanes::kCount) {
    int64_t row = 0;
    for (; row + kRows <= p.m; row += kRows) product_of<Form, kRows, kVectors>(p, row, column, offset);
    for (; row + 2 <= p.m; row += 2) product_of<Form, 2, kVectors>(p, row, column, offset);
    if (row < p.m) product_of<Form, 1, kVectors>(p, row, column, offset);
  }
}

void product(const BlockProduct& p) {
  using Codes = PanelForm::Codes;
  const PanelForm& f = *p.form;
  if (f.sub_block == 0) {
    if (f.codes == Codes::nibbles)
      return f.minima ? product_form<FormTraits<Codes::nibbles, 15, 0, true>>(p)
                      : product_form<FormTraits<Codes::nibbles, 15, 0, false>>(p);
    if (f.pairs) return product_form<FormTraits<Codes::table, 31, 0, false, true>>(p);
    if (f.codes == Codes::table)
      return f.largest > 63 ? product_form<FormTraits<Codes::table, 255, 0, false>>(p)
                            : product_form<FormTraits<Codes::table, 31, 0, false>>(p);
    if (f.minima) return product_form<FormTraits<Codes::bytes, 31, 0, true>>(p);
    return f.largest > 63 ? product_form<FormTraits<Codes::bytes, 255, 0, false>>(p)
                          : product_form<FormTraits<Codes::bytes, 31, 0, false>>(p);
  }
  if (f.sub_block == 32) {
    if (f.codes == Codes::nibbles) return product_form<FormTraits<Codes::nibbles, 15, 32, true>>(p);
    if (f.codes == Codes::table) return product_form<FormTraits<Codes::table, 255, 32, false>>(p);
    return product_form<FormTraits<Codes::bytes, 31, 32, true>>(p);
  }
  if (f.codes == Codes::bytes)
    return f.largest > 63 ? product_form<FormTraits<Codes::bytes, 127, 16, false>>(p)
                          : product_form<FormTraits<Codes::bytes, 63, 16, false>>(p);
  return f.minima ? product_form<FormTraits<Codes::nibbles, 15, 16, true>>(p)
                  : product_form<FormTraits<Codes::nibbles, 15, 16, false>>(p);
}

// Encoding: plain loops over blocks of a fixed length, which compilers make vectors of. The order of
// operations is that of ggml's x86 code.

constexpr int32_t kInfinity = 0x7F800000;

inline int32_t magnitude_bits(float x) {
  return __builtin_bit_cast(int32_t, x) & 0x7FFFFFFF;
}

/// The nearest integer, ties to even, of |x| < 2^22.
inline int32_t nearest(float x) {
  return __builtin_bit_cast(int32_t, x + 12582912.0F) - 0x4B400000;
}

template <int N>
inline int32_t largest_magnitude(const float* x) {
  int32_t most = 0;
  for (int i = 0; i < N; ++i) most = magnitude_bits(x[i]) > most ? magnitude_bits(x[i]) : most;
  return most;
}

void encode_q8(const float* x, int64_t blocks, int8_t* codes, float* scales, int16_t* sums,
               float* scaled_sums) {
  for (int64_t b = 0; b < blocks; ++b, x += 32, codes += 32, sums += 2) {
    const int32_t bits = largest_magnitude<32>(x);
    const bool finite = bits < kInfinity;
    const float most = __builtin_bit_cast(float, bits);
    const float inverse = bits == 0 || !finite ? 0 : 127 / most;
    int32_t both[2] = {};
    for (int half = 0; half < 2; ++half) {
      for (int i = 16 * half; i < 16 * half + 16; ++i) {
        const int32_t code = nearest((finite ? x[i] : 0) * inverse);
        codes[i] = static_cast<int8_t>(code);
        both[half] += code;
      }
      sums[half] = static_cast<int16_t>(both[half]);
    }
    scales[b] = finite ? most / 127 : __builtin_nanf("");
    scaled_sums[b] = scales[b] * static_cast<float>(both[0] + both[1]);
  }
}

/// The element of the largest magnitude, the first of equals.
inline float most_of_256(const float* x, int32_t bits) {
  int64_t i = 0;
  while (magnitude_bits(x[i]) != bits) ++i;
  return x[i];
}

void encode_q8_k(const float* x, int64_t blocks, int8_t* codes, float* scales, int16_t* sums) {
  for (int64_t b = 0; b < blocks; ++b, x += 256, codes += 256, sums += 16) {
    const int32_t bits = largest_magnitude<256>(x);
    const bool finite = bits < kInfinity;
    const float inverse = bits == 0 || !finite ? 0 : -127 / most_of_256(x, bits);
    for (int s = 0; s < 16; ++s) {
      int32_t sum = 0;
      for (int i = 16 * s; i < 16 * s + 16; ++i) {
        const int32_t code = nearest((finite ? x[i] : 0) * inverse);
        codes[i] = static_cast<int8_t>(code < 127 ? code : 127);
        sum += code < 127 ? code : 127;
      }
      sums[s] = static_cast<int16_t>(sum);
    }
    scales[b] = !finite ? __builtin_nanf("") : bits == 0 ? 0 : 1 / inverse;
  }
}

constexpr BlockKernels make_block_kernels(IntegerCpu cpu) {
  return {.cpu = cpu, .product = product, .encode_q8 = encode_q8, .encode_q8_k = encode_q8_k};
}

}  // namespace
}  // namespace qeval::quant
