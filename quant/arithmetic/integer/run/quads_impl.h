#pragma once

// Products of 8-bit codes in the layout of quads. Compiled once per CPU path; no floating point.

#include <cstdint>

#include "quant/arithmetic/integer/run/gemm_impl.h"

namespace qeval::quant {
namespace {

#ifdef QEVAL_BYTE_PRODUCTS

constexpr PanelLayout kQuadLayout = PanelLayout::quads;

template <size_t PANELS>
struct WholePanels {
  template <size_t... ROW>
  static void run(std::index_sequence<ROW...>, const QuadGemm& g, const uint8_t* a, const int8_t* b,
                  int32_t* c) {
    static constexpr int32_t kNothing[sizeof...(ROW) * kPanel] = {};
    const auto nothing = [](size_t row) { return load_sums(kNothing + row * kPanel); };
    if constexpr (PANELS == 1) {
      Sums sums[] = {nothing(ROW)...};
      for (int64_t e = 0; e < g.entries; ++e, a += 4, b += kQuadEntry) {
        const Quads codes = load_quads(b);
        (add_quads(sums[ROW], broadcast_int32(a + static_cast<int64_t>(ROW) * g.lda), codes), ...);
      }
      (store_sums(c + static_cast<int64_t>(ROW) * g.ldc, sums[ROW]), ...);
    } else {
      Sums left[] = {nothing(ROW)...};
      Sums right[] = {nothing(ROW)...};
      const int64_t panel = g.entries * kQuadEntry;
      const auto add = [&](size_t row, const Quads& codes, const Quads& codes2) {
        const auto x = broadcast_int32(a + static_cast<int64_t>(row) * g.lda);
        add_quads(left[row], x, codes);
        add_quads(right[row], x, codes2);
      };
      for (int64_t e = 0; e < g.entries; ++e, a += 4, b += kQuadEntry) {
        const Quads codes = load_quads(b);
        const Quads codes2 = load_quads(b + panel);
        (add(ROW, codes, codes2), ...);
      }
      (store_sums(c + static_cast<int64_t>(ROW) * g.ldc, left[ROW]), ...);
      (store_sums(c + static_cast<int64_t>(ROW) * g.ldc + kPanel, right[ROW]), ...);
    }
  }
  template <int ROWS>
  static void run(const QuadGemm* g, const uint8_t* a, const int8_t* b, int32_t* c) {
    run(std::make_index_sequence<ROWS>(), *g, a, b, c);
  }
};

template <size_t PANELS>
void gemm_panels(const QuadGemm& g, int64_t panel) {
  for (int64_t i = 0; i < g.m; i += kTileRows) {
    with_rows<WholePanels<PANELS>>(std::min(kTileRows, g.m - i), &g, g.a + i * g.lda,
                                   g.b + panel * g.entries * kQuadEntry,
                                   static_cast<int32_t*>(g.c) + i * g.ldc + panel * kPanel);
  }
}

void gemm_quads(const QuadGemm& g) {
#ifdef QEVAL_TILES
  if (g.m >= kLeastTileRows) {
    return model::multiply_by_tiles<TileProduct::unsigned_bytes>(
        {.m = g.m,
         .panels = g.panels,
         .entries = g.entries,
         .a = g.a,
         .lda = g.lda,
         .b = g.b,
         .panel_stride = g.entries * kQuadEntry,
         .c = g.c,
         .ldc = g.ldc * static_cast<int64_t>(sizeof(int32_t))});
  }
#endif
  int64_t p = 0;
  for (; p + kQuadPanels <= g.panels; p += kQuadPanels) gemm_panels<kQuadPanels>(g, p);
  for (; p < g.panels; ++p) gemm_panels<1>(g, p);
#ifdef QEVAL_SIGNED_PRODUCTS
  for (p = 0; p < g.panels; ++p) {
    const int8_t* panel = g.b + p * g.entries * kQuadEntry;
    add_offsets(g.c + p * kPanel, g.ldc, g.m, kPanel, g.entries,
                [&](int64_t e) { return load_quads(panel + e * kQuadEntry); });
  }
#endif
}

#elif defined(QEVAL_GROUPED_QUADS)

constexpr PanelLayout kQuadLayout = PanelLayout::grouped_quads;

/// The first input of an entry.
struct InOrder {
  int64_t operator()(int64_t entry) const { return 4 * entry; }
};
struct Listed {
  const int32_t* inputs;
  int64_t operator()(int64_t entry) const { return inputs[entry]; }
};

template <int GROUP, typename Inputs>
struct GroupProduct {
  template <size_t... ROW>
  static void run(std::index_sequence<ROW...>, const QuadGemm& g, const Inputs& input, const uint8_t* a,
                  const int8_t* b, int32_t* c) {
    static constexpr int32_t kNothing[kPanel] = {};
    Sums sums[] = {load_sums(g.accumulate ? c + static_cast<int64_t>(ROW) * g.ldc : kNothing)...};
    const uint8_t* rows[] = {(a + static_cast<int64_t>(ROW) * g.lda)...};
    for (int64_t e = 0; e < g.entries; e += GROUP) {
      (add_group<GROUP>(sums[ROW], rows[ROW], input, e, b + e * kQuadEntry), ...);
    }
    (store_sums(c + static_cast<int64_t>(ROW) * g.ldc, sums[ROW]), ...);
  }
  template <int ROWS>
  static void run(const QuadGemm* g, const Inputs& input, const uint8_t* a, const int8_t* b, int32_t* c) {
    run(std::make_index_sequence<ROWS>(), *g, input, a, b, c);
  }
};

template <int GROUP, int64_t ROWS, typename Inputs>
void gemm_groups(const QuadGemm& g, const Inputs& input) {
  for (int64_t p = 0; p < g.panels; ++p) {
    for (int64_t i = 0; i < g.m; i += ROWS) {
      with_rows<GroupProduct<GROUP, Inputs>, ROWS>(std::min(ROWS, g.m - i), &g, input, g.a + i * g.lda,
                                                   g.b + p * g.entries * kQuadEntry,
                                                   g.c + i * g.ldc + p * kPanel);
    }
  }
}

template <typename Inputs>
void gemm_grouped(const QuadGemm& g, const Inputs& input) {
  switch (g.group) {
    case 4:
      return gemm_groups<4, kQuadRows>(g, input);
    case 2:
      // Fewer rows: the group's four registers of B stay, too.
      return gemm_groups<2, 4>(g, input);
    default:
      return gemm_groups<1, 4>(g, input);
  }
}

void gemm_quads(const QuadGemm& g) {
  if (g.inputs == nullptr) return gemm_grouped(g, InOrder());
  gemm_grouped(g, Listed{g.inputs});
}

#else

constexpr PanelLayout kQuadLayout = PanelLayout::quads;

void gemm_quads(const QuadGemm& g) {
  for (int64_t p = 0; p < g.panels; ++p) {
    for (int64_t i = 0; i < g.m; ++i) {
      uint32_t sums[kPanel] = {};
      for (int64_t e = 0; e < g.entries; ++e) {
        const uint8_t* a = g.a + i * g.lda + 4 * e;
        const int8_t* b = g.b + (p * g.entries + e) * kQuadEntry;
        for (int64_t j = 0; j < kPanel; ++j) {
          for (int64_t t = 0; t < 4; ++t) sums[j] += static_cast<uint32_t>(a[t] * b[4 * j + t]);
        }
      }
      std::memcpy(g.c + i * g.ldc + p * kPanel, sums, sizeof(sums));
    }
  }
}

#endif

}  // namespace
}  // namespace qeval::quant
