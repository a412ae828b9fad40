#include <algorithm>

#include "eval/engine/jinja/evaluator.h"
#include "eval/engine/jinja/filters.h"
#include "eval/engine/jinja/methods.h"
#include "eval/engine/jinja/objects.h"
#include "eval/engine/jinja/operators.h"

namespace qeval::jinja {

Value Evaluator::evaluate(const Expression& expression, Activation* variables) {
  using Type = Expression::Type;
  runtime_.step();
  runtime_.line = expression.line;
  switch (expression.type) {
    case Type::constant:
      return expression.value;
    case Type::name: {
      const Value& value = slot(expression.slot, variables);
      if (!value.is_missing()) return value;
      return runtime_.undefined(repr_of_string(expression.name) + " is undefined");
    }
    default:
      break;
  }
  const Nested nested(runtime_);
  switch (expression.type) {
    case Type::attribute:
      return get_attribute(runtime_, evaluate(*expression.parts[0], variables), expression.name);
    case Type::item: {
      const Value owner = evaluate(*expression.parts[0], variables);
      return get_item(runtime_, owner, evaluate(*expression.parts[1], variables));
    }
    case Type::call:
      return evaluate_call(expression, variables, nullptr);
    case Type::filter:
      return evaluate_filter(expression, variables, nullptr);
    case Type::test: {
      const Value value = evaluate(*expression.parts[0], variables);
      const Call call = arguments(*expression.arguments, variables, Value());
      return apply_test(runtime_, expression.name, value, call);
    }
    case Type::tuple:
    case Type::list:
    case Type::dict:
    case Type::slice:
    case Type::concatenate:
      return evaluate_collection(expression, variables);
    default:
      return evaluate_operator(expression, variables);
  }
}

Value Evaluator::evaluate_operator(const Expression& expression, Activation* variables) {
  using Type = Expression::Type;
  const auto part = [&](size_t index) { return evaluate(*expression.parts[index], variables); };
  switch (expression.type) {
    case Type::condition:
      if (truth(runtime_, part(0))) return part(1);
      if (expression.parts[2] != nullptr) return part(2);
      return runtime_.undefined(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.",
          expression.line));
    case Type::both: {
      Value left = part(0);
      return truth(runtime_, left) ? part(1) : left;
    }
    case Type::either: {
      Value left = part(0);
      return truth(runtime_, left) ? left : part(1);
    }
    case Type::negation:
      return !truth(runtime_, part(0));
    case Type::comparison:
      return compare_chain(expression, variables);
    case Type::binary: {
      const Value left = part(0);
      const Value right = part(1);
      runtime_.line = expression.line;
      return binary(runtime_, expression.binary, left, right);
    }
    case Type::minus:
      return negate(part(0));
    case Type::plus:
      return affirm(part(0));
    default:
      raise("an expression that has no value");
  }
}

Value Evaluator::compare_chain(const Expression& expression, Activation* variables) {
  Value left = evaluate(*expression.parts[0], variables);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1], variables);
    if (!compare(runtime_, expression.comparisons[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate_collection(const Expression& expression, Activation* variables) {
  using Type = Expression::Type;
  switch (expression.type) {
    case Type::dict: {
      Dict dict;
      for (size_t i = 0; i + 1 < expression.parts.size(); i += 2) {
        const Value key = evaluate(*expression.parts[i], variables);
        dict.set(runtime_, key, evaluate(*expression.parts[i + 1], variables));
      }
      return runtime_.dict(std::move(dict));
    }
    case Type::slice: {
      if (expression.parts[0] == nullptr) raise("a slice that slices nothing");
      Value parts[4];
      for (size_t i = 0; i < 4; ++i) {
        if (expression.parts[i] != nullptr) parts[i] = evaluate(*expression.parts[i], variables);
      }
      return get_slice(runtime_, parts[0], parts[1], parts[2], parts[3]);
    }
    case Type::concatenate: {
      std::vector<Value> parts;
      for (const auto& part : expression.parts) parts.push_back(evaluate(*part, variables));
      Builder text(runtime_);
      for (const Value& part : parts) text.add(to_string(runtime_, part));
      return runtime_.text(text.take());
    }
    default: {
      std::vector<Value> items;
      for (const auto& part : expression.parts) items.push_back(evaluate(*part, variables));
      return runtime_.list(std::move(items),
                           expression.type == Type::list ? List::Type::list : List::Type::tuple);
    }
  }
}

Call Evaluator::arguments(const Arguments& arguments, Activation* variables, const Value& callee) {
  Call out;
  for (const auto& part : arguments.positional) out.positional.push_back(evaluate(*part, variables));
  const auto described = [&] {
    return callee.kind() == Kind::object ? std::string(type_name(callee)) : std::string("function");
  };
  if (arguments.rest != nullptr) {
    const Value rest = evaluate(*arguments.rest, variables);
    if (!is_iterable(rest)) {
      raise("{} argument after * must be an iterable, not {}", described(), type_name(rest));
    }
    for (Value& value : items_of(runtime_, rest)) out.positional.push_back(std::move(value));
  }
  for (const auto& [name, part] : arguments.named) {
    if (std::ranges::any_of(out.named, [&](const auto& other) { return other.first == name; })) {
      raise("keyword argument repeated: {}", name);
    }
    out.named.emplace_back(name, evaluate(*part, variables));
  }
  if (arguments.named_rest != nullptr) {
    const Value rest = evaluate(*arguments.named_rest, variables);
    if (!rest.is_dict())
      raise("{} argument after ** must be a mapping, not {}", described(), type_name(rest));
    for (const auto& [key, value] : rest.dict().items()) {
      if (!key.is_string()) raise("keywords must be strings");
      runtime_.step();
      if (std::ranges::any_of(out.named, [&](const auto& other) { return other.first == key.string(); })) {
        raise("{} got multiple values for keyword argument {}", described(), repr_of_string(key.string()));
      }
      out.named.emplace_back(key.string(), value);
    }
  }
  return out;
}

Value Evaluator::evaluate_call(const Expression& expression, Activation* variables, const Value* caller) {
  const Expression& callee = *expression.parts[0];
  const auto evaluated = [&](const Value& of) {
    Call call = arguments(*expression.arguments, variables, of);
    if (caller != nullptr) call.named.emplace_back("caller", *caller);
    runtime_.line = expression.line;
    return call;
  };
  if (callee.type == Expression::Type::attribute) {
    // A method of a plain value is called as it stands, without a value for the method itself.
    const Value owner = evaluate(*callee.parts[0], variables);
    if (owner.kind() != Kind::object && has_method(owner, callee.name) && !is_unsafe(owner, callee.name)) {
      return call_method(runtime_, owner, callee.name, evaluated(owner));
    }
    const Value method = get_attribute(runtime_, owner, callee.name);
    return call_value(runtime_, method, evaluated(method));
  }
  const Value function = evaluate(callee, variables);
  return call_value(runtime_, function, evaluated(function));
}

Value Evaluator::evaluate_filter(const Expression& expression, Activation* variables, const Value* input) {
  const Expression* inner = expression.parts[0].get();
  Value value;
  if (inner == nullptr) {
    value = *input;
  } else if (input != nullptr && inner->type == Expression::Type::filter) {
    value = evaluate_filter(*inner, variables, input);
  } else {
    value = evaluate(*inner, variables);
  }
  const Call call = arguments(*expression.arguments, variables, Value());
  runtime_.line = expression.line;
  return apply_filter(runtime_, expression.name, value, call);
}

}  // namespace qeval::jinja
