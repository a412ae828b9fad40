#include "quant/methods/learn/block_program.h"

#include <algorithm>
#include <optional>

namespace qeval::quant {
namespace {

using model::Value;

class ProgramBuilder {
 public:
  ProgramBuilder(const model::ModelConfig& config, int64_t layer, const PointSet& rounded)
      : operations_(config.graph.block(layer).operations), rounded_(rounded) {
    program_.tensors.push_back({.width = config.hidden_size});  // the residual stream as it comes in
  }

  BlockProgram build() {
    for (size_t i = 0; i < operations_.size();) {
      if (const auto* linear = std::get_if<model::LinearOp>(&operations_[i])) {
        i = add_linears(i, linear->in);
      } else {
        add(operations_[i++]);
      }
    }
    program_.output = at(Value::residual);
    find_parts();
    find_places();
    find_replayed();
    find_gradients();
    return std::move(program_);
  }

 private:
  using Op = model::Operation;

  size_t& at(Value value) { return current_[static_cast<size_t>(value)]; }

  size_t step(const Op* operation, std::vector<size_t> in, int64_t width) {
    const size_t out = program_.tensors.size();
    program_.tensors.push_back({.width = width});
    program_.steps.push_back({.operation = operation, .in = std::move(in), .out = out});
    return out;
  }

  /// `tensor` as it is behind a point.
  size_t round(Module module, Slot slot, size_t tensor) {
    if (!rounded_[static_cast<size_t>(module) * kSlots + static_cast<size_t>(slot)]) return tensor;
    const size_t out = step(nullptr, {tensor}, program_.tensors[tensor].width);
    program_.steps.back().module = module;
    program_.steps.back().slot = slot;
    return out;
  }
  size_t round_operand(model::Operand operand, size_t tensor) {
    const std::optional<Point> point = operand_point(0, operand);
    return point ? round(point->module, point->slot, tensor) : tensor;
  }

  /// Linear maps of one input, from operation `i` on: their inputs' roundings, the products, their outputs'.
  /// Returns the operation behind them.
  size_t add_linears(size_t i, Value in) {
    std::vector<const Op*> group;
    std::vector<size_t> inputs, outputs;
    for (; i < operations_.size(); ++i) {
      const auto* linear = std::get_if<model::LinearOp>(&operations_[i]);
      if (linear == nullptr || linear->in != in) break;
      group.push_back(&operations_[i]);
      inputs.push_back(round(linear->module, Slot::input, at(in)));
    }
    for (size_t g = 0; g < group.size(); ++g) {
      outputs.push_back(step(group[g], {inputs[g]}, std::get<model::LinearOp>(*group[g]).rows));
    }
    for (size_t g = 0; g < group.size(); ++g) {
      const auto& linear = std::get<model::LinearOp>(*group[g]);
      at(linear.out) = round_operand(linear.operand, round(linear.module, Slot::output, outputs[g]));
    }
    return i;
  }

  void add(const Op& operation) {
    if (const auto* norm = std::get_if<model::NormOp>(&operation)) {
      const size_t in = round(norm->module, Slot::input, at(norm->in));
      const size_t out = step(&operation, {in}, norm->width);
      at(norm->out) = round_operand(norm->operand, round(norm->module, Slot::output, out));
    } else if (const auto* rotate = std::get_if<model::RotateOp>(&operation)) {
      at(rotate->value) =
          round_operand(rotate->operand, step(&operation, {at(rotate->value)}, rotate->width));
    } else if (const auto* attention = std::get_if<model::AttentionOp>(&operation)) {
      const size_t out = step(&operation, {at(Value::q), at(Value::k), at(Value::v)},
                              attention->heads * attention->value_dim);
      at(Value::mixed) = round(Module::pv_product, Slot::output, out);
    } else if (const auto* activate = std::get_if<model::ActivateOp>(&operation)) {
      const size_t in = round(Module::activation, Slot::input, at(Value::gate));
      at(Value::gate) = round(Module::activation, Slot::output, step(&operation, {in}, activate->width));
    } else if (const auto* multiply = std::get_if<model::MultiplyOp>(&operation)) {
      at(Value::gate) = step(&operation, {at(Value::gate), at(Value::up)}, multiply->width);
    } else if (const auto* hadamard = std::get_if<model::HadamardOp>(&operation)) {
      // Where the down projection reads it, that rounds it.
      at(hadamard->value) =
          round_operand(hadamard->operand, step(&operation, {at(hadamard->value)}, hadamard->width));
    } else if (const auto* sum = std::get_if<model::AddOp>(&operation)) {
      const int64_t width = program_.tensors.front().width;
      at(Value::residual) = step(&operation, {at(Value::residual), at(sum->in)}, width);
    }
  }

  static bool is_product(const ProgramStep& step) {
    return step.as<model::LinearOp>() != nullptr || step.as<model::AttentionOp>() != nullptr;
  }

  void find_parts() {
    const std::vector<ProgramStep>& steps = program_.steps;
    for (size_t i = 0; i < steps.size();) {
      ProgramPart part{.first = i, .row_wise = !is_product(steps[i])};
      const bool linear = steps[i].as<model::LinearOp>() != nullptr;
      const auto belongs = [&](const ProgramStep& step) {
        return part.row_wise ? !is_product(step) : linear && step.as<model::LinearOp>() != nullptr;
      };
      for (++i; i < steps.size() && belongs(steps[i]);) ++i;
      part.last = i;
      program_.parts.push_back(part);
    }
  }

  void find_places() {
    std::vector<size_t> made_in(program_.tensors.size());  // part
    const auto keep = [&](size_t tensor) {
      program_.tensors[tensor].place = Place::kept;
      program_.tensors[tensor].offset = program_.kept++;
    };
    keep(0);
    for (size_t p = 0; p < program_.parts.size(); ++p) {
      const ProgramPart& part = program_.parts[p];
      for (size_t i = part.first; i < part.last; ++i) {
        const ProgramStep& step = program_.steps[i];
        made_in[step.out] = p;
        if (!part.row_wise) keep(step.out);
        for (const size_t in : step.in) {
          ProgramTensor& tensor = program_.tensors[in];
          if (tensor.place == Place::row && (made_in[in] != p || !part.row_wise))
            tensor.place = Place::shared;
        }
      }
    }
    program_.tensors[program_.output].place = Place::shared;
    for (ProgramPart& part : program_.parts) {
      for (size_t i = part.first; i < part.last; ++i) {
        ProgramTensor& tensor = program_.tensors[program_.steps[i].out];
        if (tensor.place != Place::row) continue;
        tensor.offset = part.row_width;
        part.row_width += tensor.width;
      }
    }
  }

  void find_replayed() {
    std::vector<bool> needed(program_.tensors.size());
    for (size_t i = program_.steps.size(); i-- > 0;) {
      const ProgramStep& step = program_.steps[i];
      // What is linear in its input needs none of it.
      const bool by_backward = step.as<model::AddOp>() == nullptr && step.as<model::RotateOp>() == nullptr &&
                               step.as<model::HadamardOp>() == nullptr;
      const bool by_replay = needed[step.out] && !is_product(step);
      for (const size_t in : step.in) needed[in] = needed[in] || by_backward || by_replay;
    }
    for (ProgramPart& part : program_.parts) {
      if (!part.row_wise) continue;
      for (size_t i = part.first; i < part.last; ++i) {
        ProgramTensor& tensor = program_.tensors[program_.steps[i].out];
        tensor.replayed = needed[program_.steps[i].out];
        part.replayed = part.replayed || (tensor.replayed && tensor.place == Place::shared);
      }
    }
  }

  /// Which gradients share memory, and who adds to each first, in the order of the backward pass.
  void find_gradients() {
    std::vector<ProgramTensor>& tensors = program_.tensors;
    std::vector<bool> begun(tensors.size());
    for (size_t t = 0; t < tensors.size(); ++t) {
      tensors[t].gradient = t;
      tensors[t].gradient_in_memory = tensors[t].place != Place::row;
    }
    begun[program_.output] = true;
    const auto visit = [&](ProgramStep& step) {
      const auto* norm = step.as<model::NormOp>();
      if (norm != nullptr && norm->bias)
        tensors[step.out].gradient_in_memory = true;  // its sum over all rows
      if (step.as<model::AddOp>() != nullptr && !begun[step.in[0]]) {
        tensors[step.in[0]].gradient = tensors[step.out].gradient;
        begun[step.in[0]] = true;
      }
      for (const size_t in : step.in) {
        step.is_first.push_back(!begun[in]);
        begun[in] = true;
      }
    };
    for (size_t p = program_.parts.size(); p-- > 0;) {
      const ProgramPart& part = program_.parts[p];
      for (size_t i = part.first; i < part.last; ++i) {
        visit(program_.steps[part.row_wise ? part.last - 1 - (i - part.first) : i]);
      }
    }
    for (ProgramTensor& tensor : tensors) {
      if (tensor.gradient_in_memory) tensors[tensor.gradient].gradient_in_memory = true;
    }
    for (ProgramTensor& tensor : tensors)
      tensor.gradient_in_memory = tensors[tensor.gradient].gradient_in_memory;
  }

  const std::vector<Op>& operations_;
  const PointSet& rounded_;
  std::array<size_t, model::kValues> current_{};
  BlockProgram program_;
};

}  // namespace

BlockProgram make_program(const model::ModelConfig& config, int64_t layer, const PointSet& rounded) {
  return ProgramBuilder(config, layer, rounded).build();
}

}  // namespace qeval::quant
