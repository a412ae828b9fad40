#include "quant/methods/awq.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "model/kernels/matmul.h"
#include "quant/calibrate/block_inputs.h"
#include "quant/methods/gptq.h"
#include "quant/methods/smoothquant.h"

namespace qeval::quant {
namespace {

constexpr int kMostScaledBits = 8;
constexpr int kRatios = 20, kClippings = 11;
constexpr int64_t kSearchRows = 64;  // of one task

/// H of inputs [first, first + count), both triangles, in float32.
std::vector<float> square(const RowMatrix& lower, int64_t first, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count * count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const auto value = static_cast<float>(lower(first + i, first + j));
      out[static_cast<size_t>(i * count + j)] = out[static_cast<size_t>(j * count + i)] = value;
    }
  }
  return out;
}

/// errors[r] ← d H dᵀ of each row of d [rows, cols]; `products` has room for d H.
void weigh(const float* d, int64_t rows, int64_t cols, const std::vector<float>& h, float* products,
           double* errors) {
  model::matmul_block(model::row_major(d, rows, cols), model::row_major(h.data(), cols, cols), products,
                      cols);
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i)
      sum += static_cast<double>(d[i]) * static_cast<double>(products[i]);
    errors[r] = sum;
  }
}

/// What a linear map reads: its products, and the sum of each channel's magnitudes.
struct InputStatistics {
  InputProducts products;
  std::vector<double> magnitudes;
  int64_t rows = 0;

  void add(const model::Tensor& input) {
    products.add(input.row<float>(0), input.rows, input.cols);
    magnitudes.resize(static_cast<size_t>(input.cols), 0.0);
    for (int64_t r = 0; r < input.rows; ++r) {
      const float* x = input.row<float>(r);
      for (size_t j = 0; j < magnitudes.size(); ++j) magnitudes[j] += static_cast<double>(std::abs(x[j]));
    }
    rows += input.rows;
  }
};

/// The maps behind an edge, and what scaling their input channels costs them.
class EdgeSearch {
 public:
  EdgeSearch(EditableModel& model, const QuantConfig& qcfg, int64_t layer, const model::ScaleEdge& edge,
             const InputStatistics& input)
      : h_(square(input.products.lower(), 0, input.products.lower().rows())), input_(input) {
    for (const Module module : edge.consumers) {
      const QuantSpec& spec = qcfg[{layer, module, Slot::weight}];
      if (spec.bits <= kMostScaledBits) consumers_.push_back({model.linear(layer, module), spec});
    }
  }

  /// The best scales; nothing where none are better than ones.
  std::optional<std::vector<float>> find() const {
    if (consumers_.empty()) return std::nullopt;
    const auto cols = static_cast<size_t>(consumers_.front().linear.cols);
    std::vector<double> x(cols);
    for (size_t j = 0; j < cols; ++j) x[j] = input_.magnitudes[j] / static_cast<double>(input_.rows);
    const std::vector<double> w = relative_weights();
    double least = error(std::vector<float>(cols, 1.0F));
    std::optional<std::vector<float>> best;
    for (int i = 0; i < kRatios; ++i) {
      const std::vector<float> scales = scales_of(x, w, static_cast<double>(i) / kRatios);
      const double found = error(scales);
      if (!(found < least)) continue;
      least = found;
      best = scales;
    }
    return best;
  }

 private:
  struct Consumer {
    EditableModel::Linear linear;
    QuantSpec spec;
  };

  /// Mean over the rows of all consumers of |w| / the largest of its group.
  std::vector<double> relative_weights() const {
    std::vector<double> sums(static_cast<size_t>(consumers_.front().linear.cols));
    double rows = 0;
    for (const Consumer& consumer : consumers_) {
      const auto& linear = consumer.linear;
      const int64_t group = consumer.spec.group_size > 0 ? consumer.spec.group_size : linear.cols;
      rows += static_cast<double>(linear.rows);
      for (int64_t r = 0; r < linear.rows; ++r) {
        const float* row = linear.row(r);
        for (int64_t first = 0; first < linear.cols; first += group) {
          float largest = 0;
          for (int64_t j = first; j < first + group; ++j) largest = std::max(largest, std::abs(row[j]));
          for (int64_t j = first; j < first + group; ++j) {
            sums[static_cast<size_t>(j)] +=
                static_cast<double>(std::abs(row[j])) / (static_cast<double>(largest) + 1e-6);
          }
        }
      }
    }
    for (double& sum : sums) sum /= rows;
    return sums;
  }

  static std::vector<float> scales_of(const std::vector<double>& x, const std::vector<double>& w,
                                      double ratio) {
    std::vector<double> scales(x.size(), 0.0);  // 0: a channel that keeps its scale
    double smallest = INFINITY, largest = 0;
    for (size_t j = 0; j < x.size(); ++j) {
      if (x[j] == 0 || w[j] == 0) continue;
      scales[j] = std::max(std::pow(x[j], ratio) / (std::pow(w[j], 1 - ratio) + 1e-4), 1e-4);
      smallest = std::min(smallest, scales[j]);
      largest = std::max(largest, scales[j]);
    }
    std::vector<float> out(x.size(), 1.0F);
    const double middle = std::sqrt(smallest * largest);
    for (size_t j = 0; j < x.size(); ++j) {
      if (scales[j] > 0) out[j] = static_cast<float>(scales[j] / middle);
    }
    return out;
  }

  double error(const std::vector<float>& scales) const {
    double sum = 0;
    for (const Consumer& consumer : consumers_) sum += error(consumer, scales);
    return sum;
  }

  double error(const Consumer& consumer, const std::vector<float>& scales) const {
    const auto& linear = consumer.linear;
    const int64_t cols = linear.cols;
    std::vector<float> scaled(static_cast<size_t>(linear.rows * cols));
    parallel_ranges(linear.rows, kSearchRows, [&](int64_t first, int64_t last) {
      for (int64_t i = first * cols; i < last * cols; ++i)
        scaled[static_cast<size_t>(i)] = linear.weight[i] * scales[static_cast<size_t>(i % cols)];
    });
    const model::Matrix matrix{.name = "scaled weight",
                               .rows = linear.rows,
                               .cols = cols,
                               .stored = model::StoredWeight(scaled.data(), cols)};
    const std::vector<Grid> grids = weight_grids(matrix, consumer.spec, WeightRange::minmax);
    const int64_t groups = consumer.spec.group_size > 0 ? cols / consumer.spec.group_size : int64_t{1};
    const bool per_tensor = grids.size() == 1 && !consumer.spec.per_channel;
    std::vector<double> errors(static_cast<size_t>(linear.rows));
    parallel_tasks((linear.rows + kSearchRows - 1) / kSearchRows, [&](int64_t task) {
      const int64_t first = task * kSearchRows, rows = std::min(kSearchRows, linear.rows - first);
      std::vector<float> d(static_cast<size_t>(rows * cols)), products(d.size());
      for (int64_t r = 0; r < rows; ++r) {
        float* out = d.data() + r * cols;
        const float* own = scaled.data() + (first + r) * cols;
        for (int64_t g = 0; g < groups; ++g) {
          const auto at = static_cast<size_t>(per_tensor ? 0 : (first + r) * groups + g);
          const int64_t width = cols / groups;
          quant_kernels().fake_quantize(own + g * width, width, grids[at], out + g * width);
        }
        const float* weight = linear.row(first + r);
        for (int64_t j = 0; j < cols; ++j) out[j] = out[j] / scales[static_cast<size_t>(j)] - weight[j];
      }
      weigh(d.data(), rows, cols, h_, products.data(), errors.data() + first);
    });
    double sum = 0;
    for (const double e : errors) sum += e;
    return sum;
  }

  std::vector<float> h_;
  const InputStatistics& input_;
  std::vector<Consumer> consumers_;
};

}  // namespace

std::vector<Warning> scale_by_activations(EditableModel& model, const QuantConfig& qcfg,
                                          const Samples& samples,
                                          const std::function<void(int64_t, int64_t)>& progress) {
  require_operations(model.model().config, "AWQ",
                     [](const model::Operation& operation) { return !model::is_beyond_dense(operation); });
  ScaleCheck check("AWQ scales");
  std::map<Module, InputStatistics> inputs;  // by one of the maps that read it
  const model::Graph& graph = model.model().config.graph;
  const BlockInputs visitor{
      [&](int64_t layer, std::span<const model::Arithmetic::Target> targets, const model::Tensor& input) {
        for (const model::ScaleEdge& edge : scale_edges(graph.block(layer))) {
          const Module reader = edge.consumers.front();
          const bool reads =
              std::ranges::any_of(targets, [&](const auto& target) { return target.op->module == reader; });
          if (reads) inputs[reader].add(input);
        }
      },
      [&](int64_t layer) {
        for (const model::ScaleEdge& edge : scale_edges(graph.block(layer))) {
          const auto scales = EdgeSearch(model, qcfg, layer, edge, inputs.at(edge.consumers.front())).find();
          if (!scales) continue;
          check.add(layer, edge_name(edge), *scales);
          apply_scales(model, layer, edge, *scales);
        }
        inputs.clear();
      }};
  for_each_block_inputs(model.model(), "AWQ", samples, visitor, progress);
  return check.warnings();
}

std::vector<Grid> output_grids(const model::Matrix& matrix, const QuantSpec& spec, const RowMatrix& lower) {
  const std::vector<Range> ranges = weight_ranges(matrix, spec);
  const bool per_tensor = !spec.per_channel && spec.group_size <= 0;
  const int64_t groups = spec.group_size > 0 ? matrix.cols / spec.group_size : 1;
  const int64_t group = matrix.cols / groups;
  const auto candidate = [&](size_t range, int k) {
    const float f = 1.0F - static_cast<float>(k) / 20.0F;
    return storable_grid(spec, {f * ranges[range].lo, f * ranges[range].hi});
  };
  // [rows, groups, candidates]
  std::vector<double> errors(static_cast<size_t>(matrix.rows * groups * kClippings));
  std::vector<std::vector<float>> h;
  for (int64_t g = 0; g < groups; ++g) h.push_back(square(lower, g * group, group));
  parallel_tasks((matrix.rows + kSearchRows - 1) / kSearchRows, [&](int64_t task) {
    const int64_t first = task * kSearchRows, rows = std::min(kSearchRows, matrix.rows - first);
    std::vector<float> w(static_cast<size_t>(rows * matrix.cols));
    std::vector<float> d(static_cast<size_t>(rows * group)), products(d.size());
    std::vector<double> own(static_cast<size_t>(rows));
    matrix.decode_rows(first, rows, w.data());
    for (int64_t g = 0; g < groups; ++g) {
      for (int k = 0; k < kClippings; ++k) {
        for (int64_t r = 0; r < rows; ++r) {
          const auto range = static_cast<size_t>(per_tensor ? 0 : (first + r) * groups + g);
          const float* from = w.data() + r * matrix.cols + g * group;
          float* out = d.data() + r * group;
          quant_kernels().fake_quantize(from, group, candidate(range, k), out);
          for (int64_t j = 0; j < group; ++j) out[j] -= from[j];
        }
        weigh(d.data(), rows, group, h[static_cast<size_t>(g)], products.data(), own.data());
        for (int64_t r = 0; r < rows; ++r) {
          errors[static_cast<size_t>(((first + r) * groups + g) * kClippings + k)] =
              own[static_cast<size_t>(r)];
        }
      }
    }
  });
  if (per_tensor) {  // rows in their order
    for (int64_t i = kClippings; i < std::ssize(errors); ++i)
      errors[static_cast<size_t>(i % kClippings)] += errors[static_cast<size_t>(i)];
  }
  std::vector<Grid> grids;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto own = errors.begin() + static_cast<int64_t>(i) * kClippings;
    grids.push_back(candidate(i, static_cast<int>(std::min_element(own, own + kClippings) - own)));
  }
  return grids;
}

}  // namespace qeval::quant
