#pragma once

#include <span>

#include "eval/engine/jinja/value.h"

namespace qeval::jinja {

/// A filter by its name in templates.
struct Filter {
  std::string_view name;
  Value (*apply)(Runtime& runtime, const Value& value, const Call& call);
};

// The filters by subject, a file for each.
std::span<const Filter> text_filters();
std::span<const Filter> number_filters();
std::span<const Filter> sequence_filters();
std::span<const Filter> selection_filters();
std::span<const Filter> markup_filters();
Value tojson(Runtime& runtime, const Value& value, const Call& call);

/// What `attribute=` in filters means: "a.b.0" are three look-ups, an integer is one.
class AttributeGetter {
 public:
  /// `attribute` none or missing: the value itself. `fallback` missing or none: there is none.
  AttributeGetter(Runtime& runtime, const Value& attribute, Value fallback = {}, bool ignore_case = false);
  Value operator()(Runtime& runtime, const Value& item) const;
  uint16_t depth() const { return depth_of(fallback_); }

 private:
  std::vector<Value> parts_;
  Value fallback_;
  bool ignore_case_;
};

/// A string in lower case, everything else as it is.
Value without_case(Runtime& runtime, const Value& value);
/// sorted(): stable, from the least on or the other way round. `keys` are what the items are compared by.
std::vector<Value> sorted(Runtime& runtime, const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse);

}  // namespace qeval::jinja
