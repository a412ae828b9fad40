#include "eval/engine/jinja/evaluator.h"
#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

/// `self`: the template's blocks as functions.
class TemplateReference : public Object {
 public:
  using Call = std::function<Value(Runtime&, const Statement&)>;
  TemplateReference(const Syntax& syntax, Call call) : syntax_(syntax), call_(std::move(call)) {}
  std::string_view type_name() const override { return "TemplateReference"; }
  std::string described() const override { return "jinja2.runtime.TemplateReference object"; }
  bool has_items() const override { return true; }
  std::optional<Value> item(Runtime& runtime, const Value& key) override {
    if (!key.is_string()) return std::nullopt;
    const auto found = syntax_.blocks.find(key.string());
    if (found == syntax_.blocks.end()) return std::nullopt;
    return runtime.make<Builtin>(
        found->first,
        [call = call_, block = found->second](Runtime& r, const jinja::Call&) { return call(r, *block); },
        uint16_t{0}, "BlockReference");
  }

 private:
  const Syntax& syntax_;
  Call call_;
};

}  // namespace

void Evaluator::run(Builder& out) {
  Context& context = *runtime_.context;
  if (!syntax_.blocks.empty()) {
    context.set["self"] =
        runtime_.make<TemplateReference>(syntax_, [this](Runtime& runtime, const Statement& block) {
          Builder text(runtime);
          execute_block(block, *runtime.context, text);
          return runtime.text(text.take());
        });
  }
  Frame frame(runtime_, nullptr, syntax_.slots);
  enter(syntax_.loads, frame.get());
  execute(syntax_.body, frame.get(), out);
}

void Evaluator::enter(const Loads& loads, Activation* variables) {
  for (const Load& load : loads) {
    runtime_.step();
    switch (load.how) {
      case Load::How::resolve:
        variables->slots[load.index] = runtime_.context->find(load.name);
        break;
      case Load::How::alias:
        variables->slots[load.index] = slot(load.from, variables);
        break;
      case Load::How::clear:
        variables->slots[load.index] = Value();
        break;
    }
  }
}

Evaluator::Flow Evaluator::execute(const Body& body, Activation* variables, Builder& out) {
  for (const auto& statement : body) {
    if (const Flow flow = execute(*statement, variables, out); flow != Flow::next) return flow;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute(const Statement& statement, Activation* variables, Builder& out) {
  using Type = Statement::Type;
  runtime_.step();
  runtime_.line = statement.line;
  const Nested nested(runtime_);
  switch (statement.type) {
    case Type::output:
      for (const auto& expression : statement.expressions) {
        out.add(to_string(runtime_, evaluate(*expression, variables)));
      }
      return Flow::next;
    case Type::branch:
      return execute_branch(statement, variables, out);
    case Type::loop:
      return execute_loop(statement, variables, out);
    case Type::set:
      execute_set(statement, variables);
      return Flow::next;
    case Type::macro: {
      const Value macro = make_macro(*statement.function, variables);
      assign(*statement.target, macro, variables);
      if (statement.exported) export_names(*statement.target, variables);
      return Flow::next;
    }
    case Type::call:
    case Type::generation:
      execute_call(statement, variables, out);
      return Flow::next;
    case Type::set_block:
    case Type::filter:
    case Type::with:
    case Type::autoescape:
      return execute_scope(statement, variables, out);
    case Type::block: {
      if (statement.required) raise("Required block {} not found", repr_of_string(statement.name));
      if (!statement.scoped) {
        execute_block(statement, *runtime_.context, out);
        return Flow::next;
      }
      Context scoped = *runtime_.context;
      runtime_.bytes(scoped.set.size() * sizeof(Value));
      for (const auto& [name, from] : statement.visible) {
        const Value& value = slot(from, variables);
        if (!value.is_missing()) scoped.set[name] = value;
      }
      execute_block(statement, scoped, out);
      return Flow::next;
    }
    case Type::leave_loop:
      return Flow::leave_loop;
    case Type::next_round:
      return Flow::next_round;
    case Type::load_template:
      evaluate(*statement.expression, variables);
      raise("no loader for this environment specified");
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_branch(const Statement& statement, Activation* variables, Builder& out) {
  for (const auto& [test, body] : statement.branches) {
    if (test == nullptr || truth(runtime_, evaluate(*test, variables))) return execute(body, variables, out);
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::execute_loop(const Statement& statement, Activation* variables, Builder& out) {
  const Value over = evaluate(*statement.expression, variables);
  if (!statement.recursive) return run_loop(statement, over, variables, 0, out);
  variables->captured = true;
  Frame frame(runtime_, variables, statement.slots);
  run_loop(statement, over, frame.get(), 0, out);
  return Flow::next;
}

Evaluator::Flow Evaluator::run_loop(const Statement& statement, const Value& over, Activation* variables,
                                    int64_t depth, Builder& out) {
  runtime_.line = statement.line;
  std::shared_ptr<Iterator> iterator = iterate(runtime_, over);
  Value counted = over;
  if (statement.test != nullptr) {
    // Elements are tested one by one, as they are asked for, be it by someone who has kept the loop.
    variables->captured = true;
    enter(statement.test_loads, variables);
    iterator = runtime_.make<Generator>(
        [this, &statement, variables, source = iterator](Runtime& runtime) -> std::optional<Value> {
          for (Value value; source->next(runtime, value);) {
            assign(*statement.test_target, value, variables);
            if (truth(runtime, evaluate(*statement.test, variables))) return value;
          }
          return std::nullopt;
        },
        iterator->depth);
    counted = Value();
  }
  LoopObject::Recurse recurse;
  if (statement.recursive) {
    Activation* defined_in = variables->parent;
    recurse = [this, &statement, defined_in](Runtime& runtime, const Value& inner, int64_t inner_depth) {
      Frame frame(runtime, defined_in, statement.slots);
      Builder text(runtime);
      run_loop(statement, inner, frame.get(), inner_depth, text);
      return runtime.text(text.take());
    };
  }
  const auto loop = runtime_.make<LoopObject>(runtime_, counted, iterator, std::move(recurse), depth);
  variables->slots[statement.loop_slot] = loop;
  bool none = true;
  for (Value value; loop->next(runtime_, value);) {
    runtime_.step();
    variables->slots[statement.loop_slot] = loop;
    assign(*statement.target, value, variables);
    enter(statement.loads, variables);
    const Flow flow = execute(statement.body, variables, out);
    if (flow == Flow::leave_loop) break;
    // As in jinja2, a round that `break` or `continue` ends early does not count for the else branch.
    if (flow == Flow::next) none = false;
  }
  variables->slots[statement.loop_slot] = Value();
  if (!none || statement.otherwise.empty()) return Flow::next;
  enter(statement.otherwise_loads, variables);
  return execute(statement.otherwise, variables, out);
}

Evaluator::Flow Evaluator::execute_scope(const Statement& statement, Activation* variables, Builder& out) {
  using Type = Statement::Type;
  std::vector<Value> values;
  if (statement.type == Type::with) {
    enter(statement.loads, variables);
    for (size_t i = 0; i < statement.targets.size(); ++i) {
      assign(*statement.targets[i], evaluate(*statement.expressions[i], variables), variables);
    }
    return execute(statement.body, variables, out);
  }
  enter(statement.loads, variables);
  if (statement.type == Type::autoescape) {
    if (truth(runtime_, evaluate(*statement.expression, variables))) {
      raise("autoescape true is not supported: chat templates print text as it is");
    }
    return execute(statement.body, variables, out);
  }
  Builder captured(runtime_);
  if (const Flow flow = execute(statement.body, variables, captured); flow != Flow::next) return flow;
  Value text = runtime_.text(captured.take());
  if (statement.expression != nullptr) text = evaluate_filter(*statement.expression, variables, &text);
  if (statement.type == Type::filter) {
    if (!text.is_string()) raise("a filter block of a {}: expected str instance", type_name(text));
    out.add(to_string(runtime_, text));
    return Flow::next;
  }
  assign(*statement.target, text, variables);
  if (statement.exported) export_names(*statement.target, variables);
  return Flow::next;
}

void Evaluator::execute_set(const Statement& statement, Activation* variables) {
  require_namespaces(*statement.target, variables);
  assign(*statement.target, evaluate(*statement.expression, variables), variables);
  if (statement.exported) export_names(*statement.target, variables);
}

void Evaluator::execute_call(const Statement& statement, Activation* variables, Builder& out) {
  const Value caller = make_macro(*statement.function, variables);
  if (statement.type == Statement::Type::generation) {
    out.add(to_string(runtime_, call_value(runtime_, caller, {})));
  } else {
    out.add(to_string(runtime_, evaluate_call(*statement.expression, variables, &caller)));
  }
}

void Evaluator::execute_block(const Statement& block, Context& context, Builder& out) {
  const Nested nested(runtime_);
  Context* outer = std::exchange(runtime_.context, &context);
  Frame frame(runtime_, nullptr, block.slots);
  enter(block.loads, frame.get());
  execute(block.body, frame.get(), out);
  runtime_.context = outer;
}

void Evaluator::require_namespaces(const Expression& target, Activation* variables) {
  if (target.type == Expression::Type::field &&
      slot(target.slot, variables).as<NamespaceObject>() == nullptr) {
    raise("cannot assign attribute on non-namespace object");
  }
  for (const auto& part : target.parts) require_namespaces(*part, variables);
}

void Evaluator::assign(const Expression& target, const Value& value, Activation* variables) {
  if (target.type == Expression::Type::name) {
    slot(target.slot, variables) = value;
    return;
  }
  if (target.type == Expression::Type::field) {
    auto* object = slot(target.slot, variables).as<NamespaceObject>();
    if (object == nullptr) raise("cannot assign attribute on non-namespace object");
    NamespaceObject::check_name(target.field);
    object->attributes.set(runtime_, runtime_.text(target.field), value);
    return;
  }
  if (!is_iterable(value)) raise("cannot unpack non-iterable {} object", type_name(value));
  const size_t wanted = target.parts.size();
  std::vector<Value> items;
  const auto iterator = iterate(runtime_, value);
  for (Value item; items.size() <= wanted && iterator->next(runtime_, item);)
    items.push_back(std::move(item));
  if (items.size() < wanted) {
    raise("not enough values to unpack (expected {}, got {})", wanted, items.size());
  }
  if (items.size() > wanted) raise("too many values to unpack (expected {})", wanted);
  for (size_t i = 0; i < wanted; ++i) assign(*target.parts[i], items[i], variables);
}

void Evaluator::export_names(const Expression& target, Activation* variables) {
  if (target.type == Expression::Type::name)
    runtime_.context->set[target.name] = slot(target.slot, variables);
  for (const auto& part : target.parts) export_names(*part, variables);
}

Value Evaluator::make_macro(const Function& function, Activation* variables) {
  variables->captured = true;
  return runtime_.make<Macro>(function, variables,
                              [this](Runtime&, const Function& called, Activation* defined_in,
                                     std::vector<Value> parameters, Value caller, Value named, Value rest) {
                                return call_macro(called, defined_in, std::move(parameters),
                                                  std::move(caller), std::move(named), std::move(rest));
                              });
}

Value Evaluator::call_macro(const Function& function, Activation* defined_in, std::vector<Value> parameters,
                            Value caller, Value named, Value rest) {
  const Nested nested(runtime_);
  Frame frame(runtime_, defined_in, function.slots);
  Activation* variables = frame.get();
  const size_t count = function.parameters.size();
  for (size_t i = 0; i < count; ++i) slot(function.parameters[i]->slot, variables) = parameters[i];
  if (!caller.is_missing()) variables->slots[function.caller_slot] = std::move(caller);
  if (function.takes_named) variables->slots[function.named_slot] = std::move(named);
  if (function.takes_rest) variables->slots[function.rest_slot] = std::move(rest);
  enter(function.loads, variables);
  const size_t without = count - function.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    Value& place = slot(function.parameters[i]->slot, variables);
    if (!place.is_missing()) continue;
    if (i >= without) {
      Value value = evaluate(*function.defaults[i - without], variables);
      slot(function.parameters[i]->slot, variables) = std::move(value);
    } else {
      place = runtime_.undefined("parameter " + repr_of_string(function.parameters[i]->name) +
                                 " was not provided");
    }
  }
  Builder text(runtime_);
  execute(function.body, variables, text);
  return runtime_.text(text.take());
}

}  // namespace qeval::jinja
