#pragma once

#include "eval/engine/jinja/value.h"

namespace qeval::jinja {

/// "…%s…" % values, where values is a tuple, a dict or one value.
Value percent_format(Runtime& runtime, const Value& format, const Value& values);
/// "…{}…".format(...).
Value brace_format(Runtime& runtime, const Value& format, const Call& call);

/// How a number is written: Python's format specification, of which the letters %…d have a part.
struct NumberFormat {
  std::string fill = " ";
  char align = '\0';  ///< < > ^ = or none
  char sign = '-';
  bool alternate = false;
  int64_t width = 0;
  char grouping = '\0';
  int64_t precision = -1;
  char type = '\0';
};
std::string format_integer(Runtime& runtime, int64_t value, const NumberFormat& format);
std::string format_real(Runtime& runtime, double value, const NumberFormat& format);
/// Fills up to the width; `digits_at`: where a number's digits begin, behind its sign and prefix.
std::string pad(Runtime& runtime, std::string text, const NumberFormat& format, char default_align,
                size_t digits_at);

}  // namespace qeval::jinja
