#pragma once

#include "eval/engine/jinja/syntax.h"

namespace qeval::jinja {

/// Ties the names of a parsed template to slots, by the rules of jinja2's compiler (its idtracking and
/// compiler modules), which decide where a `set` is seen: a loop, a macro, a `with`, a set or filter block
/// has variables of its own, which begin as copies of the outer ones; the branches of an `if` do not; what is
/// not set in any scope is looked up by name. Raises where a filter, test or name cannot be used as it is.
Syntax bind(Body body);

}  // namespace qeval::jinja
