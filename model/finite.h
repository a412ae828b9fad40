#pragma once

#include <span>
#include <string>

#include "base/error.h"
#include "model/arithmetic.h"

namespace qeval::model {

/// The model computes a value that is not finite: what was asked of it has no answer. The request was in
/// order.
class NotFinite : public Error {
 public:
  using Error::Error;
};

/// How messages write a number that is not finite: "nan" whatever its sign, "inf" or "-inf".
std::string not_finite_text(double value);

/// Where a pass over `tokens`, the first at position 0, first computes a value that is not finite: "the
/// output of model.layers.2.mlp.w2, at token 0 of the input (id 1)". Looks at the output of every operation
/// of a pass of its own: to be asked once something is wrong. Says so where that operation's weights are not
/// finite.
std::string first_not_finite(const Model& model, const Arithmetic& arithmetic,
                             std::span<const int32_t> tokens);

}  // namespace qeval::model
