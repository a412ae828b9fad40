#include "eval/engine/jinja/methods.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

constexpr std::string_view kStringMethods[] = {
    "capitalize", "casefold",     "center",       "count",   "encode",     "endswith",    "expandtabs",
    "find",       "format",       "format_map",   "index",   "isalnum",    "isalpha",     "isascii",
    "isdecimal",  "isdigit",      "isidentifier", "islower", "isnumeric",  "isprintable", "isspace",
    "istitle",    "isupper",      "join",         "ljust",   "lower",      "lstrip",      "maketrans",
    "partition",  "removeprefix", "removesuffix", "replace", "rfind",      "rindex",      "rjust",
    "rpartition", "rsplit",       "rstrip",       "split",   "splitlines", "startswith",  "strip",
    "swapcase",   "title",        "translate",    "upper",   "zfill"};
constexpr std::string_view kMarkupMethods[] = {"escape", "striptags", "unescape"};
constexpr std::string_view kListMethods[] = {"append", "clear", "copy",   "count",   "extend", "index",
                                             "insert", "pop",   "remove", "reverse", "sort"};
constexpr std::string_view kTupleMethods[] = {"count", "index"};
constexpr std::string_view kDictMethods[] = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                                             "pop",   "popitem", "setdefault", "update", "values"};
constexpr std::string_view kIntegerMethods[] = {"as_integer_ratio", "bit_count",  "bit_length",
                                                "conjugate",        "from_bytes", "to_bytes"};
constexpr std::string_view kRealMethods[] = {"as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"};

template <size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

/// Checks a method's positional arguments, in the words of Python's dict and list.
void accept(std::string_view type, std::string_view name, const Call& call, size_t least, size_t most) {
  const size_t count = call.positional.size();
  if (!call.named.empty()) raise("{}.{}() takes no keyword arguments", type, name);
  if (count >= least && count <= most) return;
  if (most == 0) raise("{}.{}() takes no arguments ({} given)", type, name, count);
  if (least == most) raise("{}.{}() takes exactly one argument ({} given)", type, name, count);
  const size_t bound = count < least ? least : most;
  raise("{} expected at {} {} argument{}, got {}", name, count < least ? "least" : "most", bound,
        bound == 1 ? "" : "s", count);
}

Value call_dict_method(Runtime& runtime, const Value& dict, std::string_view name, const Call& call) {
  if (name == "get") {
    accept("dict", name, call, 1, 2);
    const Value* found = dict.dict().find(runtime, call.positional[0]);
    if (found != nullptr) return *found;
    return call.positional.size() == 2 ? call.positional[1] : Value::none();
  }
  if (name == "items" || name == "keys" || name == "values") {
    accept("dict", name, call, 0, 0);
    const auto what = name == "items"  ? DictView::What::items
                      : name == "keys" ? DictView::What::keys
                                       : DictView::What::values;
    return runtime.make<DictView>(dict, what);
  }
  if (name == "copy") {
    accept("dict", name, call, 0, 0);
    return dict;  // nothing can change it
  }
  raise("the method {} of a dict is not supported", name);
}

Value call_list_method(Runtime& runtime, const Value& list, std::string_view name, const Call& call) {
  const std::string_view type = type_name(list);
  const auto& items = list.list().items;
  if (name == "copy") {
    accept(type, name, call, 0, 0);
    return list;
  }
  if (name == "count") {
    accept(type, name, call, 1, 1);
    return static_cast<int64_t>(std::ranges::count_if(
        items, [&](const Value& item) { return equal(runtime, item, call.positional[0]); }));
  }
  if (name == "index") {
    accept(type, name, call, 1, 3);
    const auto length = std::ssize(items);
    const auto bound = [&](size_t index, int64_t otherwise) {
      if (call.positional.size() <= index) return otherwise;
      const int64_t given = require_integer(call.positional[index]);
      return std::clamp<int64_t>(given < 0 ? given + length : given, 0, length);
    };
    for (int64_t i = bound(1, 0); i < bound(2, length); ++i) {
      if (equal(runtime, items[static_cast<size_t>(i)], call.positional[0])) return i;
    }
    if (type == "tuple") raise("tuple.index(x): x not in tuple");
    raise("{} is not in list", to_repr(runtime, call.positional[0]));
  }
  raise("the method {} of a {} is not supported", name, type);
}

Value call_number_method(Runtime& runtime, const Value& number, std::string_view name, const Call& call) {
  accept(type_name(number), name, call, 0, 0);
  if (name == "conjugate") return number.is_real() ? number : Value(*integer_of(number));
  if (number.is_real()) {
    if (name == "is_integer")
      return std::floor(number.real()) == number.real() && std::isfinite(number.real());
  } else {
    const int64_t value = *integer_of(number);
    const uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    if (name == "bit_length") return static_cast<int64_t>(std::bit_width(magnitude));
    if (name == "bit_count") return static_cast<int64_t>(std::popcount(magnitude));
    if (name == "as_integer_ratio") return runtime.tuple({value, int64_t{1}});
  }
  raise("the method {} of a {} is not supported", name, type_name(number));
}

}  // namespace

bool has_method(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::string:
      return among(kStringMethods, name) || (value.is_markup() && among(kMarkupMethods, name));
    case Kind::list:
      return among(kListMethods, name);
    case Kind::tuple:
      return among(kTupleMethods, name);
    case Kind::dict:
      return among(kDictMethods, name);
    case Kind::boolean:
    case Kind::integer:
      return among(kIntegerMethods, name);
    case Kind::real:
      return among(kRealMethods, name);
    default:
      return false;
  }
}

Value call_method(Runtime& runtime, const Value& value, std::string_view name, const Call& call) {
  switch (value.kind()) {
    case Kind::string:
      return call_string_method(runtime, value, name, call);
    case Kind::dict:
      return call_dict_method(runtime, value, name, call);
    case Kind::list:
    case Kind::tuple:
      return call_list_method(runtime, value, name, call);
    default:
      return call_number_method(runtime, value, name, call);
  }
}

}  // namespace qeval::jinja
