#include <algorithm>

#include "eval/engine/jinja/objects.h"

namespace qeval::jinja {
namespace {

struct Parameter {
  std::string_view name;
  bool optional = false;
};

struct Signature {
  std::string_view function;
  size_t passed = 0;  ///< parameters that jinja2 or Python passes itself
  std::vector<Parameter> parameters;
};

Signature read_signature(std::string_view text) {
  Signature out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (out.function.empty()) {
      out.function = word;
    } else if (word.starts_with('*')) {
      ++out.passed;
    } else if (word.ends_with('?')) {
      word.remove_suffix(1);
      out.parameters.push_back({word, true});
    } else {
      out.parameters.push_back({word, false});
    }
  }
  return out;
}

[[noreturn]] void raise_too_many(const Signature& signature, size_t given) {
  const size_t most = signature.parameters.size() + signature.passed;
  const size_t least = signature.passed + static_cast<size_t>(std::ranges::count(signature.parameters, false,
                                                                                 &Parameter::optional));
  given += signature.passed;
  const std::string accepted =
      least == most ? fmt::format("{}", most) : fmt::format("from {} to {}", least, most);
  raise("{}() takes {} positional argument{} but {} {} given", signature.function, accepted,
        most == 1 ? "" : "s", given, given == 1 ? "was" : "were");
}

[[noreturn]] void raise_missing(const Signature& signature, const std::vector<Value>& values) {
  std::vector<std::string> names;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].is_missing() && !signature.parameters[i].optional) {
      names.push_back(repr_of_string(signature.parameters[i].name));
    }
  }
  std::string listed;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) listed += i + 1 < names.size() ? ", " : names.size() == 2 ? " and " : ", and ";
    listed += names[i];
  }
  raise("{}() missing {} required positional argument{}: {}", signature.function, names.size(),
        names.size() == 1 ? "" : "s", listed);
}

}  // namespace

std::vector<Value> bind_arguments(std::string_view text, const Call& call) {
  const Signature signature = read_signature(text);
  if (call.positional.size() > signature.parameters.size()) raise_too_many(signature, call.positional.size());
  std::vector<Value> out = call.positional;
  out.resize(signature.parameters.size());
  for (const auto& [name, value] : call.named) {
    const auto found = std::ranges::find(signature.parameters, std::string_view(name), &Parameter::name);
    if (found == signature.parameters.end()) {
      raise("{}() got an unexpected keyword argument {}", signature.function, repr_of_string(name));
    }
    Value& place = out[static_cast<size_t>(found - signature.parameters.begin())];
    if (!place.is_missing()) {
      raise("{}() got multiple values for argument {}", signature.function, repr_of_string(name));
    }
    place = value;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].is_missing() && !signature.parameters[i].optional) raise_missing(signature, out);
  }
  return out;
}

std::vector<Value> bind_arguments(std::string_view signature, const Value& first, const Call& call) {
  Call all;
  all.positional.reserve(call.positional.size() + 1);
  all.positional.push_back(first);
  all.positional.insert(all.positional.end(), call.positional.begin(), call.positional.end());
  all.named = call.named;
  return bind_arguments(signature, all);
}

int64_t require_integer(const Value& value) {
  const auto integer = integer_of(value);
  if (!integer) raise("'{}' object cannot be interpreted as an integer", type_name(value));
  return *integer;
}

}  // namespace qeval::jinja
