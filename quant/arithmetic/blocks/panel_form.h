#pragma once

#include <cstdint>

#include "model/checkpoint/tensor.h"

namespace qeval::quant {

/// Rows of a weight matrix side by side in a panel: the columns of the product.
inline constexpr int64_t kPanelColumns = 32;
/// Elements of a row that lie together in every form.
inline constexpr int64_t kRun = 32;

/// How weights in ggml's blocks are laid out for products of their codes, in panels of kPanelColumns rows.
/// A panel is block after block; a block is
///   codes    per run of 32 elements, as bytes [8, columns, 4]: four neighbours of each row; as nibbles
///            [4, columns, 4]: quad q in the low ones, quad q + 4 in the high ones
///   steps    [sub-blocks, columns] int8, where the block is 256 elements in sub-blocks
///   least    [sub-blocks / 2, columns, 2] uint8, where these have minima
///   scale    [columns] halves (or bfloat16)
///   minimum  [columns] halves, where there are minima; in pairs, the scale of the second 16 elements
/// An element is scale · (code − offset) + minimum, or, in sub-blocks,
/// scale · unit · step · (code − offset) − minimum · least; of a table, its entry is the code.
struct PanelForm {
  enum class Codes : uint8_t { bytes, nibbles, table };

  Codes codes = Codes::bytes;
  int32_t largest = 255;  ///< code
  int32_t offset = 0;
  bool minima = false;
  bool pairs = false;        ///< blocks of 32 elements with a scale for each 16 (NVFP4)
  int64_t sub_block = 0;     ///< elements, 16 or 32, or 0: blocks of 32 without sub-blocks
  float unit = 1;            ///< a power of two, of sub-blocks: what makes their steps whole numbers
  bool bf16_scales = false;  ///< whose exponents a half does not hold
  uint8_t table[16] = {};

  int64_t block() const { return sub_block == 0 ? kRun : 256; }
  int64_t sub_blocks() const { return sub_block == 0 ? 0 : block() / sub_block; }
  int64_t code_bytes() const { return block() * kPanelColumns / (codes == Codes::bytes ? 1 : 2); }
  int64_t block_bytes() const {
    return code_bytes() + sub_blocks() * kPanelColumns * (minima ? 2 : 1) +
           kPanelColumns * (minima || pairs ? 4 : 2);
  }
};

/// That of a stored type, or null where it is none of GGUF's blocks.
const PanelForm* panel_form(model::DType dtype);

}  // namespace qeval::quant
