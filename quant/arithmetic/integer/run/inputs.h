#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "quant/arithmetic/integer/run/linear.h"

namespace qeval::quant {

/// Rows per task of row-wise operations on integers: enough to outweigh its start.
inline constexpr int64_t kIntegerRowGrain = 8;

/// What linear maps of one tensor read. Those that round the shared input again get a copy of their own, and
/// so do those that read the residual stream on different grids.
class LinearInputs {
 public:
  explicit LinearInputs(const model::Tensor& in) : in_(in) {}

  /// Valid as long as this object.
  const LinearInput& read(const IntegerMatrix& map);

 private:
  struct Input {
    model::Tensor copy, bytes;
    std::vector<int64_t> sums;
    LinearInput view;
    std::optional<StreamRead> stream;
    bool own = false;  ///< rounded again
  };

  const model::Tensor& in_;
  std::vector<std::unique_ptr<Input>> inputs_;
};

/// A tile of a linear map's results.
struct LinearTask {
  const IntegerMatrix* matrix;
  const LinearInput* input;
  model::Tensor* out;
  int64_t first_column, first_row, row_count;
};
/// Adds the tiles of rows [first_row, last_row) of `out`, which is shaped.
void add_tasks(const IntegerMatrix& map, const LinearInput& input, int64_t first_row, int64_t last_row,
               model::Tensor& out, std::vector<LinearTask>& tasks);
void run(const std::vector<LinearTask>& tasks);

}  // namespace qeval::quant
