#include "eval/engine/jinja/symbols.h"

#include "eval/engine/jinja/runtime.h"

namespace qeval::jinja {
namespace {

constexpr int64_t kMostCopied = 10'000'000;

/// Walks a body in the order in which jinja2 visits it.
class UndeclaredNames {
 public:
  explicit UndeclaredNames(std::set<std::string> names) : names_(std::move(names)) {}

  void visit(const Body& body) {
    for (const auto& statement : body) visit(*statement);
  }
  std::set<std::string> found;

 private:
  void visit(const Expression* expression, bool stores = false) {
    if (expression == nullptr) return;
    if (expression->type == Expression::Type::name) {
      if (stores) {
        names_.erase(expression->name);
      } else if (names_.contains(expression->name)) {
        found.insert(expression->name);
      }
    }
    for (const auto& part : expression->parts) visit(part.get(), stores);
    if (expression->arguments != nullptr) {
      for (const auto& part : expression->arguments->positional) visit(part.get());
      for (const auto& [name, part] : expression->arguments->named) visit(part.get());
      visit(expression->arguments->rest.get());
      visit(expression->arguments->named_rest.get());
    }
  }

  void visit(const Statement& statement) {
    if (statement.type == Statement::Type::block) return;
    if (statement.type == Statement::Type::macro) {
      visit(*statement.function);
      return;
    }
    visit(statement.target.get(), true);
    for (const auto& target : statement.targets) visit(target.get(), true);
    visit(statement.expression.get());
    for (const auto& expression : statement.expressions) visit(expression.get());
    for (const auto& [test, body] : statement.branches) {
      visit(test.get());
      visit(body);
    }
    if (statement.function != nullptr) visit(*statement.function);
    visit(statement.body);
    visit(statement.otherwise);
    visit(statement.test.get());
  }

  void visit(const Function& function) {
    for (const auto& parameter : function.parameters) visit(parameter.get(), true);
    for (const auto& value : function.defaults) visit(value.get());
    visit(function.body);
  }

  std::set<std::string> names_;
};

}  // namespace

std::set<std::string> find_undeclared(const Body& body, std::set<std::string> names) {
  UndeclaredNames visitor(std::move(names));
  visitor.visit(body);
  return visitor.found;
}

Slot Functions::slot(int function, int variable) const {
  const Variable& of = variables[static_cast<size_t>(variable)];
  Slot out{0, of.index};
  for (; function != of.function; function = entries[static_cast<size_t>(function)].parent) ++out.hops;
  return out;
}

int Symbols::find(const std::string& name) const {
  for (const Symbols* at = this; at != nullptr; at = at->parent_) {
    if (const auto found = at->variables_.find(name); found != at->variables_.end()) return found->second;
  }
  return -1;
}

int Symbols::define(const std::string& name, Beginning beginning) {
  const auto [made, added] = made_->try_emplace(name, -1);
  if (added) made->second = functions_->new_variable(function_);
  const int variable = made->second;
  variables_[name] = variable;
  beginnings_[variable] = std::move(beginning);
  return variable;
}

void Symbols::load(const std::string& name) {
  if (find(name) < 0) define(name, {Begin::resolve, -1, name});
}

void Symbols::store(const std::string& name) {
  stores_.insert(name);
  if (variables_.contains(name)) return;
  const int outer = parent_ == nullptr ? -1 : parent_->find(name);
  define(name, {outer < 0 ? Begin::undefined : Begin::alias, outer, ""});
}

void Symbols::declare_parameter(const std::string& name) {
  stores_.insert(name);
  define(name, {Begin::parameter, -1, ""});
}

Symbols Symbols::copy() const {
  functions_->copied += static_cast<int64_t>(variables_.size() + beginnings_.size() + stores_.size());
  if (functions_->copied > kMostCopied) raise("too many names in too many branches: more than are supported");
  return *this;
}

void Symbols::update(const std::vector<Symbols>& branches) {
  std::set<std::string> stores;
  for (const Symbols& branch : branches) {
    for (const std::string& name : branch.stores_) {
      if (!stores_.contains(name)) stores.insert(name);
    }
  }
  for (const Symbols& branch : branches) {
    for (const auto& [name, variable] : branch.variables_) variables_[name] = variable;
    for (const auto& [variable, beginning] : branch.beginnings_) beginnings_[variable] = beginning;
    stores_.insert(branch.stores_.begin(), branch.stores_.end());
  }
  for (const std::string& name : stores) {
    const int outer = parent_ == nullptr ? -1 : parent_->find(name);
    beginnings_[find(name)] =
        outer < 0 ? Beginning{Begin::resolve, -1, name} : Beginning{Begin::alias, outer, ""};
  }
}

Loads Symbols::loads() const {
  Loads out;
  for (const auto& [variable, beginning] : beginnings_) {
    Load load;
    load.index = functions_->variables[static_cast<size_t>(variable)].index;
    switch (beginning.begin) {
      case Begin::parameter:
        continue;
      case Begin::resolve:
        load.how = Load::How::resolve;
        load.name = beginning.name;
        break;
      case Begin::alias:
        load.how = Load::How::alias;
        load.from = functions_->slot(function_, beginning.outer);
        break;
      case Begin::undefined:
        break;
    }
    out.push_back(std::move(load));
  }
  return out;
}

std::map<std::string, int> Symbols::all_stored() const {
  std::map<std::string, int> out;
  for (const Symbols* at = this; at != nullptr; at = at->parent_) {
    for (const std::string& name : at->stores_) out.emplace(name, find(name));
  }
  return out;
}

void Symbols::load_arguments(const Arguments& arguments) {
  for (const auto& part : arguments.positional) load_names(part.get());
  for (const auto& [name, part] : arguments.named) load_names(part.get());
  load_names(arguments.rest.get());
  load_names(arguments.named_rest.get());
}

void Symbols::load_names(const Expression* expression) {
  if (expression == nullptr) return;
  if (expression->type == Expression::Type::name) load(expression->name);
  for (const auto& part : expression->parts) load_names(part.get());
  if (expression->arguments != nullptr) load_arguments(*expression->arguments);
}

void Symbols::store_names(const Expression& target, bool as_parameter) {
  if (target.type == Expression::Type::name) {
    as_parameter ? declare_parameter(target.name) : store(target.name);
  } else if (target.type == Expression::Type::field) {
    load(target.name);
  }
  for (const auto& part : target.parts) store_names(*part, as_parameter);
}

void Symbols::analyze(const Body& body) {
  for (const auto& statement : body) analyze(*statement);
}

void Symbols::analyze_branches(const Statement& statement) {
  const auto& branches = statement.branches;
  load_names(branches.front().first.get());
  std::vector<Symbols> out;
  out.push_back(copy());
  out.back().analyze(branches.front().second);
  Symbols others = copy();
  for (size_t i = 1; i < branches.size() && branches[i].first != nullptr; ++i) {
    others.load_names(branches[i].first.get());
    Symbols then = others.copy();
    then.analyze(branches[i].second);
    others.update({then});
  }
  out.push_back(std::move(others));
  if (branches.back().first == nullptr) {
    out.push_back(copy());
    out.back().analyze(branches.back().second);
  }
  update(out);
}

void Symbols::analyze(const Statement& statement) {
  using Type = Statement::Type;
  switch (statement.type) {
    case Type::output:
      for (const auto& expression : statement.expressions) load_names(expression.get());
      break;
    case Type::branch:
      analyze_branches(statement);
      break;
    case Type::set:
      load_names(statement.expression.get());
      store_names(*statement.target, false);
      break;
    case Type::set_block:
      store_names(*statement.target, false);
      break;
    case Type::macro:
      store(statement.target->name);
      break;
    case Type::with:
      for (const auto& expression : statement.expressions) load_names(expression.get());
      break;
    case Type::loop:
    case Type::call:
    case Type::filter:
    case Type::load_template:
      load_names(statement.expression.get());
      break;
    case Type::generation:
    case Type::autoescape:
    case Type::block:
    case Type::leave_loop:
    case Type::next_round:
      break;
  }
}

}  // namespace qeval::jinja
