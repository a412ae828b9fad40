#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint/code_layout.h"
#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// Scales of a quantized matrix as they are stored: that of (row, group) is element
/// row / rows_per_scale · row_step + group · group_step.
struct StoredScales {
  enum class Type : uint8_t {
    one,  ///< no tensor: `global` alone
    f32,
    f16,
    bf16,
    f8_e4m3,
    e8m0,   ///< 2^(byte − 127)
    nested  ///< a byte u: map[u] · absmax[element / block] + offset (bitsandbytes)
  };
  Type type = Type::f32;
  const std::byte* data = nullptr;
  int64_t row_step = 0, group_step = 0, rows_per_scale = 1;
  /// A second scale of the whole matrix, combined with each in float32: multiplied, or where `divides`, what
  /// each is divided by.
  float global = 1;
  bool divides = false;
  const float* map = nullptr;     ///< [256]
  const float* absmax = nullptr;  ///< [elements / block, rounded up]
  int64_t block = 1;
  float offset = 0;
};

/// Zero points: `constant` where there is no tensor, else constant + (stored + add), the sum masked.
struct StoredZeros {
  enum class Layout : uint8_t {
    none,
    row_stream,     ///< [groups, words]: a dense stream over the rows of the matrix (GPTQ)
    row_planes,     ///< the same in planes
    awq,            ///< [groups, rows / 8]
    int8,           ///< element row · row_step + group · group_step, signed
    column_stream,  ///< [words, groups]: a dense stream over the rows, down a column (compressed-tensors)
    column_words    ///< the same in words of ⌊32 / bits⌋
  };
  Layout layout = Layout::none;
  const std::byte* data = nullptr;
  int bits = 8;
  int64_t stride = 0;  ///< words of a line
  int64_t row_step = 0, group_step = 0;
  /// GPTQ's v1 stores whole words less this; what a field lent its neighbour comes back with it.
  uint32_t word_add = 0;
  int32_t add = 0, mask = -1;
  int32_t constant = 0;
};

/// A quantized matrix [rows, cols] as its tensors lie in the checkpoint: codes, and per row and group of
/// columns a scale and a zero point. An element is ((code − zero) · scale) · factor, or value[code] · scale,
/// rounded to float32 after each operation.
struct CodedWeight {
  std::string format;  ///< for people: "GPTQ 4-bit g128"
  int64_t rows = 0, cols = 0;
  Codes codes;
  const float* values = nullptr;  ///< [16] or [256], what codes stand for where they are not numbers
  int value_count = 0;
  StoredScales scales;
  StoredZeros zeros;
  int64_t group = 0;  ///< columns of a group
  /// Groups are runs of the whole matrix, row behind row, so that one may span two rows (bitsandbytes).
  bool flat = false;
  const int32_t* group_of = nullptr;  ///< [cols], where columns are in groups in another order
  int64_t groups = 0;                 ///< of a row, where group_of says which
  float factor = 1;
  /// All that was read, in a fixed order: what the weight's identity is made of.
  std::vector<TensorView> tensors;

  /// Decodes elements [row, row + count_rows) × [col, col + count) to `out`, rows `stride` apart. `col` is a
  /// multiple of kCodeBlock.
  void decode(int64_t row, int64_t count_rows, int64_t col, int64_t count, float* out, int64_t stride) const;
  /// grid_scales and grid_zeros [n] ← those of groups [first, first + n) of a row, without the factor; zero
  /// points of unpacked codes. Precondition: codes are numbers (no values).
  void read_grids(int64_t row, int64_t first, int64_t n, float* grid_scales, int32_t* grid_zeros) const;
  int64_t byte_count() const;
};

/// What E4M3 and E2M1 codes stand for.
const float* e4m3_values();
const float* e2m1_values();
/// 2^(byte − 127); NaN for 255.
float e8m0_value(uint8_t byte);

/// Rows of a matrix as they lie in the checkpoint: floats, GGUF blocks, or codes on grids. A view, decoded
/// stretch by stretch and never as a whole; the checkpoint must outlive it.
class StoredWeight {
 public:
  StoredWeight() = default;
  /// Rows of `cols` elements of one type, one behind the other.
  StoredWeight(DType dtype, int64_t cols, const std::byte* data)
      : dtype_(dtype), data_(data), row_bytes_(cols / info(dtype).block_size * info(dtype).block_bytes) {}
  StoredWeight(const float* data, int64_t cols)
      : StoredWeight(DType::f32, cols, reinterpret_cast<const std::byte*>(data)) {}
  /// Rows from `first_row` on of a quantized matrix.
  StoredWeight(std::shared_ptr<const CodedWeight> coded, int64_t first_row)
      : coded_(std::move(coded)), first_row_(first_row) {}

  /// The element type, where rows are elements or blocks of one; null where they are codes of a format.
  const DType* plain_type() const { return coded_ == nullptr ? &dtype_ : nullptr; }
  /// Where row r begins. Precondition: plain_type().
  const std::byte* row(int64_t r) const { return data_ + r * row_bytes_; }
  /// The quantized matrix that these rows belong to, or null.
  const CodedWeight* coded() const { return coded_.get(); }
  /// Which of the quantized matrix's rows is row 0 here.
  int64_t first_row() const { return first_row_; }
  /// "BF16", "Q4_1", "GPTQ 4-bit g128".
  std::string format() const;
  /// Whether the other is a view of the same bytes.
  bool is_same(const StoredWeight& other) const {
    return data_ == other.data_ && coded_ == other.coded_ && first_row_ == other.first_row_;
  }

  /// Decodes elements [row, row + rows) × [col, col + count) to float32, rows of `out` `stride` apart. `col`
  /// is a multiple of the type's block and of kCodeBlock.
  void decode(int64_t row, int64_t rows, int64_t col, int64_t count, float* out, int64_t stride) const;
  /// Stored bytes of that many rows, scales and zero points included.
  int64_t byte_count(int64_t rows) const;
  /// Calls visit(bytes) for what rows [row, row + rows) are made of, all of a quantized matrix.
  void visit_bytes(int64_t row, int64_t rows,
                   const std::function<void(std::span<const std::byte>)>& visit) const;

 private:
  DType dtype_ = DType::f32;
  const std::byte* data_ = nullptr;
  int64_t row_bytes_ = 0;
  std::shared_ptr<const CodedWeight> coded_;
  int64_t first_row_ = 0;
};

}  // namespace qeval::model
