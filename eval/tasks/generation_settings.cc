#include "eval/tasks/generation_settings.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "base/strict_json.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

template <typename Number>
bool read_number(std::string_view text, Number& value) {
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  return read.ec == std::errc() && read.ptr == text.data() + text.size();
}

ordered_json value_of(const std::string& text) {
  const std::string small = lower(text);
  if (small == "true" || small == "false") return small == "true";
  int64_t whole = 0;
  if (read_number(text, whole)) return whole;
  double number = 0;
  if (read_number(text, number) && std::isfinite(number)) return number;
  return text;
}

[[noreturn]] void refuse(const std::string& name, const ordered_json& value, const char* accepted) {
  fail("{}: {} is {}; accepted: {}", setting("gen-kwargs"), printable(name, 40), printable(value.dump(), 60),
       accepted);
}

int64_t whole(const std::string& name, const ordered_json& value, int64_t least, const char* accepted) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (!value.is_number_integer() || value.get<double>() < static_cast<double>(least) ||
      value.get<double>() > kMost)
    refuse(name, value, accepted);
  return value.get<int64_t>();
}

double number(const std::string& name, const ordered_json& value, double least, double most,
              const char* accepted) {
  const double out = value.is_number() ? value.get<double>() : NAN;
  if (!(out >= least && out <= most)) refuse(name, value, accepted);
  return out;
}

std::vector<std::string> stops(const ordered_json& value) {
  std::vector<std::string> out;
  const ordered_json list = value.is_array() ? value : ordered_json::array({value});
  for (const ordered_json& stop : list) {
    if (!stop.is_string() || stop.get_ref<const std::string&>().empty())
      refuse("until", value, "a text, or a list of texts");
    out.push_back(stop.get<std::string>());
  }
  return out;
}

}  // namespace

ordered_json parse_generation_settings(const std::string& text) {
  const std::string option = setting("gen-kwargs");
  if (strip(text).starts_with('{')) {
    ordered_json out = parse_ordered_json(std::string(strip(text)), option);
    if (!out.is_object()) fail("{}: a JSON object is expected", option);
    return out;
  }
  ordered_json out = ordered_json::object();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item(strip(std::string_view(text).substr(begin, end - begin)));
    begin = end + 1;
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0)
      fail("{}: \"{}\": NAME=VALUE,… or a JSON object is expected", option, printable(item, 60));
    out[item.substr(0, equals)] = value_of(item.substr(equals + 1));
  }
  return out;
}

std::shared_ptr<const Generation> with_settings(const Generation& generation, const ordered_json& settings) {
  auto out = std::make_shared<Generation>(generation);
  bool samples = out->temperature > 0;
  std::optional<double> temperature;
  for (const auto& [name, value] : settings.items()) {
    if (name == "until") {
      out->until = stops(value);
    } else if (name == "max_gen_toks" || name == "max_new_tokens") {
      out->max_tokens = whole(name, value, 1, "a number of tokens, from 1");
    } else if (name == "do_sample") {
      if (!value.is_boolean()) refuse(name, value, "true, false");
      samples = value.get<bool>();
      if (samples && out->temperature == 0) temperature = temperature.value_or(1.0);
    } else if (name == "temperature") {
      temperature = number(name, value, 0, 1000, "a number from 0");
      if (!settings.contains("do_sample")) samples = *temperature > 0;
    } else if (name == "top_p") {
      out->top_p = number(name, value, 1e-9, 1, "a number above 0, up to 1");
    } else if (name == "top_k") {
      out->top_k = whole(name, value, 0, "a number of tokens; 0: all");
    } else if (name == "seed") {
      out->seed = static_cast<uint64_t>(whole(name, value, 0, "a whole number from 0"));
    } else if (name == "repeats") {
      out->repeats = whole(name, value, 1, "a number of texts per document, from 1");
    } else {
      fail(
          "{}: {} is unknown; accepted: until, max_gen_toks, do_sample, temperature, top_k, top_p, seed, "
          "repeats",
          setting("gen-kwargs"), printable(name, 40));
    }
    out->arguments[name] = value;
  }
  if (temperature) out->temperature = *temperature;
  if (!samples) out->temperature = 0;
  return out;
}

}  // namespace qeval::eval
