#include "quant/arithmetic/integer/run/inputs.h"

#include <algorithm>
#include <cstring>

#include "quant/arithmetic/integer/run/rowwise.h"

namespace qeval::quant {
namespace {

constexpr int64_t kIntegerTaskColumns = 64;
constexpr int64_t kIntegerTaskRows = 1024;

/// Codes of one row for this map, in `copy` where they are not those of the input.
void read_row(const IntegerMatrix& w, const model::Tensor& in, int64_t r, model::Tensor& copy) {
  if (w.stream) {
    read_stream_row(*w.stream, in.row<int32_t>(r), in.cols, copy.row<int16_t>(r));
  } else if (!w.input_table.identity()) {
    std::memcpy(copy.row<int16_t>(r), in.row<int16_t>(r), static_cast<size_t>(in.cols) * sizeof(int16_t));
    apply_table(w.input_table, in.cols, copy.row<int16_t>(r));
  }
}

}  // namespace

const LinearInput& LinearInputs::read(const IntegerMatrix& map) {
  const bool own = !map.input_table.identity();
  const auto found = std::ranges::find_if(inputs_, [&](const std::unique_ptr<Input>& input) {
    return !own && !input->own && input->stream == map.stream;
  });
  const bool made_before = found != inputs_.end();
  Input& input = made_before ? **found : *inputs_.emplace_back(std::make_unique<Input>());
  const bool needs_sums = map.has_zero_points && input.sums.empty();
  const bool needs_bytes = map.narrow_input && input.bytes.rows == 0;
  if (!made_before) {
    input.view = {in_.rows, in_.cols, in_.row<int16_t>(0)};
    input.stream = map.stream;
    input.own = own;
    if (map.stream || own) {
      input.copy.resize(in_.rows, in_.cols, sizeof(int16_t));
      input.view.codes = input.copy.row<int16_t>(0);
    }
  }
  if (needs_sums) {
    input.sums.resize(static_cast<size_t>(in_.rows));
    input.view.sums = input.sums.data();
  }
  if (needs_bytes) {
    input.bytes.resize(in_.rows, byte_stride(in_.cols), 1);
    input.view.bytes = input.bytes.row<uint8_t>(0);
  }
  parallel_ranges(in_.rows, kIntegerRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      if (!made_before) read_row(map, in_, r, input.copy);
      const int16_t* codes = input.view.codes + r * in_.cols;
      if (needs_sums) row_sums(codes, 1, in_.cols, input.sums.data() + r);
      if (needs_bytes) to_bytes(codes, in_.cols, input.bytes.row<uint8_t>(r));
    }
  });
  return input.view;
}

void add_tasks(const IntegerMatrix& map, const LinearInput& input, int64_t first_row, int64_t last_row,
               model::Tensor& out, std::vector<LinearTask>& tasks) {
  for (int64_t row = first_row; row < last_row; row += kIntegerTaskRows) {
    for (int64_t column = 0; column < map.rows; column += kIntegerTaskColumns)
      tasks.push_back({&map, &input, &out, column, row, std::min(kIntegerTaskRows, last_row - row)});
  }
}

void run(const std::vector<LinearTask>& tasks) {
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t t) {
    const LinearTask& task = tasks[static_cast<size_t>(t)];
    linear_codes(*task.matrix, task.first_column,
                 std::min(kIntegerTaskColumns, task.matrix->rows - task.first_column), *task.input,
                 task.first_row, task.row_count, task.out->row<int16_t>(task.first_row) + task.first_column,
                 task.matrix->rows);
  });
}

}  // namespace qeval::quant
