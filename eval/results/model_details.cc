#include "eval/results/model_details.h"

#include "base/error.h"
#include "base/json_object.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

/// `record`[key], or record.settings[key]; null where neither is there.
const ordered_json* find_in(const ordered_json& record, const char* key) {
  if (!record.is_object()) return nullptr;
  if (const auto found = record.find(key); found != record.end()) return &*found;
  const auto settings = record.find("settings");
  if (settings == record.end() || !settings->is_object()) return nullptr;
  const auto found = settings->find(key);
  return found == settings->end() ? nullptr : &*found;
}

std::string text_in(const ordered_json& record, const char* key) {
  const ordered_json* value = find_in(record, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

/// [step, loss]
TrainingLoss loss_from_json(const OrderedJsonObject& details, const ordered_json& item) {
  if (!item.is_array() || item.size() != 2 || !item[0].is_number_integer())
    details.refuse("training_loss", "an array of [step, loss]");
  const ordered_json pair = {{"step", item[0]}, {"loss", item[1]}};
  const OrderedJsonObject fields(pair, details.where() + ", \"training_loss\"");
  return {fields.count("step"), fields.any_number("loss")};
}

}  // namespace

std::string ModelDetails::method() const {
  return text_in(quantize, "method");
}

std::string ModelDetails::variant() const {
  return text_in(quantize, "variant");
}

std::optional<double> ModelDetails::quantize_seconds() const {
  const ordered_json* value = find_in(quantize, "seconds");
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->get<double>();
}

std::optional<int64_t> ModelDetails::quantize_peak_bytes() const {
  const ordered_json* value = find_in(quantize, "peak_rss_bytes");
  if (value == nullptr || !value->is_number_integer()) return std::nullopt;
  return value->get<int64_t>();
}

ordered_json to_json(const ModelDetails& details) {
  ordered_json out = {{"parameters", details.parameters},
                      {"size_bytes", details.size_bytes},
                      {"weight_bits", number_to_json(details.weight_bits)},
                      {"activation_bits", details.activation_bits},
                      {"scheme", details.scheme}};
  if (!details.format.empty()) out["format"] = details.format;
  if (!details.integer_linears.empty()) out["integer_linears"] = details.integer_linears;
  if (!details.quantize.is_null()) out["quantize"] = details.quantize;
  for (const TrainingLoss& point : details.training_loss)
    out["training_loss"].push_back({point.step, number_to_json(point.loss)});
  for (const LayerError& error : details.layer_errors)
    out["layer_errors"].push_back({{"layer", error.layer}, {"error", number_to_json(error.error)}});
  return out;
}

ModelDetails model_details(const ModelInfo& model, const std::string& where) {
  const OrderedJsonObject fields(model.details, where + ", \"model\", \"details\"");
  ModelDetails out;
  if (fields.has("parameters")) out.parameters = fields.count("parameters");
  if (fields.has("size_bytes")) out.size_bytes = fields.count("size_bytes");
  if (fields.has("weight_bits")) out.weight_bits = fields.any_number("weight_bits");
  if (fields.has("scheme")) out.scheme = fields.string("scheme");
  if (fields.has("format")) out.format = fields.string("format");
  if (fields.has("integer_linears")) out.integer_linears = fields.string("integer_linears");
  if (fields.has("activation_bits")) {
    const int64_t bits = fields.count("activation_bits");
    if (bits > 64) fields.refuse("activation_bits", "at most 64");
    out.activation_bits = static_cast<int>(bits);
  }
  if (fields.has("quantize")) out.quantize = fields.object("quantize").value();
  if (fields.has("training_loss")) {
    const ordered_json& losses = fields.at("training_loss");
    if (!losses.is_array()) fields.refuse("training_loss", "an array of [step, loss]");
    for (const ordered_json& item : losses) out.training_loss.push_back(loss_from_json(fields, item));
  }
  if (fields.has("layer_errors")) {
    const ordered_json& errors = fields.at("layer_errors");
    if (!errors.is_array()) fields.refuse("layer_errors", "an array of {\"layer\", \"error\"}");
    for (const ordered_json& item : errors) {
      const OrderedJsonObject error(item, fields.where() + ", \"layer_errors\"");
      out.layer_errors.push_back({error.count("layer"), error.any_number("error")});
    }
  }
  return out;
}

}  // namespace qeval::eval
