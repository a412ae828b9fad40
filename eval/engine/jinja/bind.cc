#include "eval/engine/jinja/bind.h"

#include <algorithm>

#include "eval/engine/jinja/filters.h"
#include "eval/engine/jinja/runtime.h"
#include "eval/engine/jinja/symbols.h"

namespace qeval::jinja {
namespace {

/// Where code stands: the names it sees and what may be written there.
struct BindingFrame {
  Symbols* symbols = nullptr;
  int function = 0;
  bool top_level = false;
  bool soft = false;  ///< in a branch, where a filter that does not exist is an error only when it is used
  bool in_loop = false;
};

ExpressionPtr copy_of_target(const Expression& target) {
  auto out = std::make_unique<Expression>();
  out->type = target.type;
  out->line = target.line;
  out->name = target.name;
  out->field = target.field;
  for (const auto& part : target.parts) out->parts.push_back(copy_of_target(*part));
  return out;
}

bool sets_name(const Expression& target) {
  return target.type == Expression::Type::name ||
         std::ranges::any_of(target.parts, [](const auto& part) { return sets_name(*part); });
}

class Binder {
 public:
  Syntax run(Body body) {
    Syntax out;
    const int function = functions_.add(-1);
    Symbols symbols(functions_, function, nullptr);
    symbols.analyze(body);
    bind(body, {.symbols = &symbols, .function = function, .top_level = true});
    out.loads = symbols.loads();
    out.slots = functions_.entries[static_cast<size_t>(function)].slots;
    out.blocks = std::move(blocks_);
    out.body = std::move(body);
    return out;
  }

 private:
  using Type = Statement::Type;

  void bind(Body& body, const BindingFrame& frame) {
    for (auto& statement : body) bind(*statement, frame);
  }

  void bind(Statement& statement, const BindingFrame& frame) {
    switch (statement.type) {
      case Type::output:
        for (auto& expression : statement.expressions) bind(expression.get(), frame);
        break;
      case Type::branch: {
        BindingFrame soft = frame;
        soft.soft = true;
        for (auto& [test, body] : statement.branches) {
          bind(test.get(), soft);
          bind(body, soft);
        }
        break;
      }
      case Type::loop:
        bind_loop(statement, frame);
        break;
      case Type::set:
        bind(statement.expression.get(), frame);
        bind_target(*statement.target, frame);
        statement.exported = frame.top_level && sets_name(*statement.target);
        break;
      case Type::macro:
        bind_function(*statement.function, frame, statement.line);
        bind_target(*statement.target, frame);
        statement.exported = frame.top_level;
        break;
      case Type::call:
        bind_function(*statement.function, frame, statement.line);
        bind(statement.expression.get(), frame);
        break;
      case Type::generation:
        bind_function(*statement.function, frame, statement.line);
        break;
      case Type::set_block:
      case Type::filter:
      case Type::with:
      case Type::autoescape:
        bind_scope(statement, frame);
        break;
      case Type::block:
        bind_block(statement, frame);
        break;
      case Type::load_template:
        bind(statement.expression.get(), frame);
        break;
      case Type::leave_loop:
        if (!frame.in_loop) throw TemplateError("'break' outside loop", statement.line);
        break;
      case Type::next_round:
        if (!frame.in_loop) throw TemplateError("'continue' not properly in loop", statement.line);
        break;
    }
  }

  void refuse_loop_target(const Expression& target) {
    if (target.type == Expression::Type::name && target.name == "loop") {
      throw TemplateError("Can't assign to special loop variable in for-loop target", target.line);
    }
    for (const auto& part : target.parts) refuse_loop_target(*part);
  }
  void refuse_loop_targets(const Body& body) {
    for (const auto& statement : body) refuse_loop_targets(*statement);
  }
  void refuse_loop_targets(const Statement& statement) {
    if (statement.target != nullptr && statement.type != Type::macro) refuse_loop_target(*statement.target);
    for (const auto& [test, body] : statement.branches) refuse_loop_targets(body);
    if (statement.type != Type::loop) {  // a loop inside has looked for itself
      refuse_loop_targets(statement.body);
      refuse_loop_targets(statement.otherwise);
    }
    if (statement.function != nullptr) refuse_loop_targets(statement.function->body);
  }

  void bind_loop(Statement& statement, const BindingFrame& frame) {
    refuse_loop_target(*statement.target);
    const int function = statement.recursive ? functions_.add(frame.function) : frame.function;
    Symbols inside(functions_, function, frame.symbols);
    inside.declare_parameter("loop");
    inside.store_names(*statement.target, true);
    inside.analyze(statement.body);
    const BindingFrame loop{.symbols = &inside, .function = function, .in_loop = true};
    bind(statement.expression.get(), frame);
    bind_target(*statement.target, loop);
    if (statement.test != nullptr) {
      // The test has variables of its own: it may run ahead of the body.
      Symbols ahead(functions_, function, frame.symbols);
      ahead.store_names(*statement.target, true);
      ahead.load_names(statement.test.get());
      const BindingFrame test{.symbols = &ahead, .function = function};
      statement.test_target = copy_of_target(*statement.target);
      bind_target(*statement.test_target, test);
      bind(statement.test.get(), test);
      statement.test_loads = ahead.loads();
    }
    bind(statement.body, loop);
    refuse_loop_targets(statement.body);
    statement.loop_slot = functions_.slot(function, inside.find("loop")).index;
    statement.loads = inside.loads();
    Symbols otherwise(functions_, function, frame.symbols);
    otherwise.analyze(statement.otherwise);
    bind(statement.otherwise,
         {.symbols = &otherwise, .function = function, .in_loop = frame.in_loop && !statement.recursive});
    statement.otherwise_loads = otherwise.loads();
    statement.slots = functions_.entries[static_cast<size_t>(function)].slots;
  }

  void bind_function(Function& function, const BindingFrame& frame, int line) {
    const int id = functions_.add(frame.function);
    Symbols inside(functions_, id, frame.symbols);
    const auto analyze = [&] {
      for (const auto& parameter : function.parameters) inside.store_names(*parameter, true);
      for (const auto& value : function.defaults) inside.load_names(value.get());
      inside.analyze(function.body);
    };
    analyze();
    const auto has_parameter = [&](std::string_view name) {
      return std::ranges::find(function.parameters, name, [](const auto& p) -> std::string_view {
               return p->name;
             }) != function.parameters.end();
    };
    const std::set<std::string> undeclared = find_undeclared(function.body, {"caller", "kwargs", "varargs"});
    const auto special = [&](const char* name, bool& takes, uint32_t& slot) {
      inside.declare_parameter(name);
      takes = true;
      slot = functions_.slot(id, inside.find(name)).index;
    };
    function.explicit_caller = has_parameter("caller");
    if (undeclared.contains("caller")) {
      if (!function.explicit_caller) {
        special("caller", function.takes_caller, function.caller_slot);
      } else if (!caller_has_default(function)) {
        throw TemplateError(
            "When defining macros or call blocks the special \"caller\" argument must be omitted or be given "
            "a "
            "default.",
            line);
      } else {
        function.takes_caller = true;
      }
    }
    if (undeclared.contains("kwargs") && !has_parameter("kwargs")) {
      special("kwargs", function.takes_named, function.named_slot);
    }
    if (undeclared.contains("varargs") && !has_parameter("varargs")) {
      special("varargs", function.takes_rest, function.rest_slot);
    }
    analyze();
    const BindingFrame body{.symbols = &inside, .function = id};
    for (auto& parameter : function.parameters) bind_target(*parameter, body);
    for (auto& value : function.defaults) bind(value.get(), body);
    bind(function.body, body);
    function.loads = inside.loads();
    function.slots = functions_.entries[static_cast<size_t>(id)].slots;
  }

  static bool caller_has_default(const Function& function) {
    const size_t without = function.parameters.size() - function.defaults.size();
    for (size_t i = without; i < function.parameters.size(); ++i) {
      if (function.parameters[i]->name == "caller") return true;
    }
    return false;
  }

  /// A set block, filter block, with or autoescape: variables of its own in the same function.
  void bind_scope(Statement& statement, const BindingFrame& frame) {
    Symbols inside(functions_, frame.function, frame.symbols);
    for (const auto& target : statement.targets) inside.store_names(*target, true);
    inside.analyze(statement.body);
    if (statement.type == Type::with) {
      for (auto& expression : statement.expressions) bind(expression.get(), frame);
    } else {
      inside.load_names(statement.expression.get());
    }
    const BindingFrame body{.symbols = &inside, .function = frame.function, .in_loop = frame.in_loop};
    for (auto& target : statement.targets) bind_target(*target, body);
    bind(statement.body, body);
    bind(statement.expression.get(), body);
    if (statement.target != nullptr) {
      bind_target(*statement.target, frame);
      statement.exported = frame.top_level && sets_name(*statement.target);
    }
    statement.loads = inside.loads();
  }

  void bind_block(Statement& statement, const BindingFrame& frame) {
    if (!blocks_.emplace(statement.name, &statement).second) {
      throw TemplateError("block '" + statement.name + "' defined twice", statement.line);
    }
    const int function = functions_.add(-1);
    Symbols inside(functions_, function, nullptr);
    inside.analyze(statement.body);
    bind(statement.body, {.symbols = &inside, .function = function});
    statement.loads = inside.loads();
    statement.slots = functions_.entries[static_cast<size_t>(function)].slots;
    if (!statement.scoped) return;
    for (const auto& [name, variable] : frame.symbols->all_stored()) {
      statement.visible.emplace_back(name, functions_.slot(frame.function, variable));
    }
  }

  void bind_target(Expression& target, const BindingFrame& frame) {
    if (target.type == Expression::Type::name || target.type == Expression::Type::field) {
      target.slot = functions_.slot(frame.function, frame.symbols->find(target.name));
    }
    for (auto& part : target.parts) bind_target(*part, frame);
  }

  void bind(Expression* expression, const BindingFrame& frame) {
    if (expression == nullptr) return;
    BindingFrame inner = frame;
    switch (expression->type) {
      case Expression::Type::name:
        expression->slot = functions_.slot(frame.function, frame.symbols->find(expression->name));
        break;
      case Expression::Type::condition:
        inner.soft = true;
        break;
      case Expression::Type::filter:
        if (!frame.soft && !has_filter(expression->name)) {
          throw TemplateError("No filter named " + repr_of_string(expression->name) + ".", expression->line);
        }
        break;
      case Expression::Type::test:
        if (!frame.soft && !has_test(expression->name)) {
          throw TemplateError("No test named " + repr_of_string(expression->name) + ".", expression->line);
        }
        break;
      default:
        break;
    }
    for (auto& part : expression->parts) bind(part.get(), inner);
    if (expression->arguments == nullptr) return;
    for (auto& part : expression->arguments->positional) bind(part.get(), inner);
    for (auto& [name, part] : expression->arguments->named) bind(part.get(), inner);
    bind(expression->arguments->rest.get(), inner);
    bind(expression->arguments->named_rest.get(), inner);
  }

  Functions functions_;
  std::map<std::string, Statement*, std::less<>> blocks_;
};

}  // namespace

Syntax bind(Body body) {
  return Binder().run(std::move(body));
}

}  // namespace qeval::jinja
