#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eval/engine/jinja/value.h"

/// What a template is once it is parsed: statements and expressions, whose names the binder (bind.h) then
/// ties to the places where their values will stand.
namespace qeval::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;
struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

/// Where a variable stands: in the slots of the running function, or of one `hops` definitions further out.
struct Slot {
  uint32_t hops = 0;
  uint32_t index = 0;
};

/// What a scope does with one of its variables on entry.
struct Load {
  enum class How : uint8_t { resolve, alias, clear };  ///< look up by name; copy an outer variable; unset
  How how = How::clear;
  uint32_t index = 0;  ///< of the slot, in the running function
  Slot from;           ///< alias
  std::string name;    ///< resolve
};
using Loads = std::vector<Load>;

/// Arguments as they are written.
struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr rest;        ///< *expression
  ExpressionPtr named_rest;  ///< **expression
};

enum class Binary : uint8_t { add, subtract, multiply, divide, floor_divide, modulo, power };
enum class Comparison : uint8_t { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };

struct Expression {
  enum class Type : uint8_t {
    constant,     ///< `value`
    name,         ///< `name` at `slot`
    field,        ///< a namespace's attribute as the target of a set: `name` at `slot`, `field`
    tuple,        ///< parts
    list,         ///< parts
    dict,         ///< parts: key, value, key, value, …
    condition,    ///< parts: test, then, otherwise (may be null)
    both,         ///< parts: left, right (`and`)
    either,       ///< parts: left, right (`or`)
    negation,     ///< parts: one (`not`)
    comparison,   ///< parts: the operands; `comparisons` between them
    binary,       ///< parts: left, right; `binary`
    minus,        ///< parts: one
    plus,         ///< parts: one
    concatenate,  ///< parts (`~`)
    attribute,    ///< parts: owner; `name`
    item,         ///< parts: owner, key
    slice,   ///< parts: owner (null in x[1:2, 3], which no value takes), from, to, step; each may be null
    call,    ///< parts: callee; `arguments`
    filter,  ///< parts: input (null in a filter block); `name`, `arguments`
    test     ///< parts: value; `name`, `arguments`
  };
  Type type = Type::constant;
  Binary binary = Binary::add;
  int line = 0;
  uint16_t depth = 1;  ///< of the tree below, bounded by the parser
  Slot slot;
  std::string name;
  std::string field;
  Value value;
  std::vector<ExpressionPtr> parts;
  std::vector<Comparison> comparisons;
  std::unique_ptr<Arguments> arguments;
};

/// A macro's, call block's or generation block's definition.
struct Function {
  std::string name;                       ///< empty: anonymous
  std::vector<ExpressionPtr> parameters;  ///< names
  std::vector<ExpressionPtr> defaults;    ///< of the last parameters
  Body body;
  // By the binder:
  Loads loads;
  size_t slots = 0;
  bool takes_caller = false, takes_named = false, takes_rest = false;
  bool explicit_caller = false;  ///< `caller` is a parameter
  uint32_t caller_slot = 0, named_slot = 0, rest_slot = 0;
};

struct Statement {
  enum class Type : uint8_t {
    output,        ///< expressions
    branch,        ///< branches: (test, body)…, the last test null for `else`
    loop,          ///< target, expression (over what), test, body, otherwise, recursive
    set,           ///< target, expression
    set_block,     ///< target, expression (a filter, or null), body
    macro,         ///< target (a name), function
    call,          ///< expression (the call), function
    generation,    ///< function
    filter,        ///< expression (a filter), body
    with,          ///< targets, expressions, body
    autoescape,    ///< expression, body
    block,         ///< name, body, scoped, required
    leave_loop,    ///< break
    next_round,    ///< continue
    load_template  ///< extends, include, import, from: expression; there is nothing to load from
  };
  Type type = Type::output;
  int line = 0;
  bool recursive = false, scoped = false, required = false;
  bool exported = false;  ///< at the top level: what is set is seen by macros and blocks
  std::string name;
  ExpressionPtr target, expression, test;
  ExpressionPtr test_target;  ///< the loop's target among the test's variables
  std::vector<ExpressionPtr> targets, expressions;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body body, otherwise;
  std::unique_ptr<Function> function;
  // By the binder:
  Loads loads, otherwise_loads, test_loads;
  uint32_t loop_slot = 0;
  size_t slots = 0;                                   ///< of a recursive loop's function, of a block's
  std::vector<std::pair<std::string, Slot>> visible;  ///< what a scoped block sees
};

/// A parsed and bound template.
struct Syntax {
  Body body;
  Loads loads;
  size_t slots = 0;
  std::map<std::string, Statement*, std::less<>> blocks;
};

}  // namespace qeval::jinja
