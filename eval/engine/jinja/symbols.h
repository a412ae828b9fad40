#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "eval/engine/jinja/syntax.h"

namespace qeval::jinja {

/// A variable of one scope: in which function it lives, and where.
struct Variable {
  int function = 0;
  uint32_t index = 0;
};

/// The functions of a template (itself, its macros, call blocks, blocks, recursive loops) and their
/// variables.
struct Functions {
  struct Entry {
    int parent = -1;
    size_t slots = 0;
  };
  std::vector<Entry> entries;
  std::vector<Variable> variables;
  int64_t copied = 0;  ///< names, see Symbols::copy

  int add(int parent) {
    entries.push_back({parent, 0});
    return static_cast<int>(entries.size()) - 1;
  }
  int new_variable(int function) {
    variables.push_back({function, static_cast<uint32_t>(entries[static_cast<size_t>(function)].slots++)});
    return static_cast<int>(variables.size()) - 1;
  }
  /// How code of `function` reaches a variable.
  Slot slot(int function, int variable) const;
};

/// The names of one scope, as jinja2's idtracking.Symbols has them: which variable a name is, what its
/// variables begin as, and what is set in it.
class Symbols {
 public:
  Symbols(Functions& functions, int function, Symbols* parent)
      : functions_(&functions), function_(function), parent_(parent) {}

  void load(const std::string& name);
  void store(const std::string& name);
  void declare_parameter(const std::string& name);
  /// What an if's branches do, as one: a name that is set in any begins as what it is outside.
  void update(const std::vector<Symbols>& branches);
  /// For a branch. Copies are counted, and bounded: an if costs as many as its scope has names.
  Symbols copy() const;

  /// The variable of a name, -1 where it has none.
  int find(const std::string& name) const;
  Loads loads() const;
  /// Every name that is set here or further out, with its variable.
  std::map<std::string, int> all_stored() const;

  // What a statement or an expression does to the names of the scope it stands in; scopes inside are left
  // out.
  void analyze(const Body& body);
  void analyze(const Statement& statement);
  void load_names(const Expression* expression);
  void store_names(const Expression& target, bool as_parameter);

 private:
  enum class Begin : uint8_t { parameter, resolve, alias, undefined };
  struct Beginning {
    Begin begin = Begin::undefined;
    int outer = -1;
    std::string name;
  };
  int define(const std::string& name, Beginning beginning);
  void analyze_branches(const Statement& statement);
  void load_arguments(const Arguments& arguments);

  Functions* functions_;
  int function_;
  Symbols* parent_;
  std::map<std::string, int> variables_;
  /// The variables that this scope and its copies have made, by name.
  std::shared_ptr<std::map<std::string, int>> made_ = std::make_shared<std::map<std::string, int>>();
  std::map<int, Beginning> beginnings_;
  std::set<std::string> stores_;
};

/// Which of `names` a body reads before it sets them (jinja2's find_undeclared): a macro that reads `caller`,
/// `kwargs` or `varargs` is called with them.
std::set<std::string> find_undeclared(const Body& body, std::set<std::string> names);

}  // namespace qeval::jinja
