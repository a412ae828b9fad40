#pragma once

#include "eval/engine/jinja/runtime.h"
#include "eval/engine/jinja/syntax.h"

namespace qeval::jinja {

/// Runs a bound template.
class Evaluator {
 public:
  Evaluator(Runtime& runtime, const Syntax& syntax) : runtime_(runtime), syntax_(syntax) {}

  /// The whole template; its output goes to `out`.
  void run(Builder& out);

 private:
  enum class Flow : uint8_t { next, leave_loop, next_round };

  // Statements (execute.cc).
  Flow execute(const Body& body, Activation* variables, Builder& out);
  Flow execute(const Statement& statement, Activation* variables, Builder& out);
  Flow execute_branch(const Statement& statement, Activation* variables, Builder& out);
  Flow execute_loop(const Statement& statement, Activation* variables, Builder& out);
  Flow run_loop(const Statement& statement, const Value& over, Activation* variables, int64_t depth,
                Builder& out);
  Flow execute_scope(const Statement& statement, Activation* variables, Builder& out);
  void execute_set(const Statement& statement, Activation* variables);
  void execute_call(const Statement& statement, Activation* variables, Builder& out);
  void execute_block(const Statement& block, Context& context, Builder& out);
  void enter(const Loads& loads, Activation* variables);
  void assign(const Expression& target, const Value& value, Activation* variables);
  void require_namespaces(const Expression& target, Activation* variables);
  void export_names(const Expression& target, Activation* variables);
  Value make_macro(const Function& function, Activation* variables);
  Value call_macro(const Function& function, Activation* defined_in, std::vector<Value> parameters,
                   Value caller, Value named, Value rest);

  // Expressions (evaluate.cc).
  Value evaluate(const Expression& expression, Activation* variables);
  Value evaluate_operator(const Expression& expression, Activation* variables);
  Value evaluate_collection(const Expression& expression, Activation* variables);
  Value evaluate_call(const Expression& expression, Activation* variables, const Value* caller);
  Value evaluate_filter(const Expression& expression, Activation* variables, const Value* input);
  Value compare_chain(const Expression& expression, Activation* variables);
  Call arguments(const Arguments& arguments, Activation* variables, const Value& callee);

  static Value& slot(const Slot& slot, Activation* variables) {
    for (uint32_t i = 0; i < slot.hops; ++i) variables = variables->parent;
    return variables->slots[slot.index];
  }

  Runtime& runtime_;
  const Syntax& syntax_;
};

}  // namespace qeval::jinja
