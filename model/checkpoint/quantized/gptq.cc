// GPTQ. Of a module with `in` inputs and `out` outputs, G = ⌈in / group_size⌉: qweight I32 [in·bits/32, out],
// codes packed along in (code_layout.h: columns_stream, or columns_planes for `gptq_p`); qzeros I32
// [G, out·bits/32], packed along out; scales [G, out]; g_idx I32 [in], the group of each input.
// W[o, i] = scales[g, o] · (q[i, o] − z[g, o]), g = g_idx[i].
//
// Zero points of version 1 are stored less one. gptqmodel subtracts that one from whole words, so that a zero
// point of 0 borrows from its neighbour: adding it to the word gives every field back. Three bits straddle
// words: there it is field by field, modulo 8.

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/setting.h"
#include "model/checkpoint/quantized/format.h"
#include "model/checkpoint/quantized/name_pattern.h"

namespace qeval::model {
namespace {

/// The group of each input, where it is not its number divided by the group's size.
const int32_t* read_order(ModuleTensors& tensors, int64_t group, int64_t groups) {
  const TensorView& tensor = tensors.take("g_idx", {tensors.request().cols}, {DType::i32});
  const auto* order = reinterpret_cast<const int32_t*>(tensor.bytes.data());
  bool usual = true;
  for (int64_t i = 0; i < tensors.request().cols; ++i) {
    if (order[i] < 0 || order[i] >= groups) {
      fail("{} holds {} at {}; accepted: 0 to {}, the groups that the scales have", tensors.where("g_idx"),
           order[i], i, groups - 1);
    }
    usual = usual && order[i] == i / group;
  }
  return usual ? nullptr : order;
}

/// Whether every zero point of a module is stored as `value`.
bool all_zeros_are(const CodedWeight& weight, int64_t groups, uint32_t value) {
  const StoredZeros& z = weight.zeros;
  for (int64_t g = 0; g < groups; ++g) {
    const std::byte* line = z.data + g * z.stride * 4;
    for (int64_t r = 0; r < weight.rows; ++r) {
      const uint32_t code = z.layout == StoredZeros::Layout::row_planes ? plane_code(line, z.bits, r)
                                                                        : stream_code(line, z.bits, r);
      if (code != value) return false;
    }
  }
  return true;
}

/// Symmetric files hold one zero point, the middle: stored as the other version would have it, the label is
/// wrong.
void check_version(const ModuleTensors& tensors, const CodedWeight& weight, const GptqLayout& layout,
                   int64_t groups) {
  if (!layout.symmetric || layout.zeros_label.empty()) return;
  const uint32_t middle = 1U << (layout.bits - 1);
  const bool v2 = layout.zeros == GptqLayout::Zeros::v2;
  const uint32_t other = v2 ? middle - 1 : middle;
  if (!all_zeros_are(weight, groups, other)) return;
  fail(
      "{}: all zero points are stored as {}, which version {} of the format writes for sym: true, but {} "
      "says version {}; accepted: {} v1 or v2, which says how to read them",
      tensors.where("qzeros"), other, v2 ? 1 : 2, layout.zeros_label, v2 ? 2 : 1, setting("gptq-zeros"));
}

/// What holds for a module: the config's own values, or those of the first of `dynamic`'s rules that its name
/// matches.
struct Rule {
  NamePattern pattern;
  bool skips;
  nlohmann::json values;
};

std::vector<Rule> read_dynamic(const QuantizationConfig& config) {
  std::vector<Rule> rules;
  const auto found = config.ordered.find("dynamic");
  if (found == config.ordered.end() || found->is_null()) return rules;
  if (!found->is_object()) config.object().refuse("dynamic", "an object of regular expressions");
  for (const auto& [key, value] : found->items()) {
    const std::string where = fmt::format("{}: dynamic", config.where);
    const bool skips = key.starts_with("-:");
    const std::string_view pattern = std::string_view(key).substr(skips || key.starts_with("+:") ? 2 : 0);
    if (!value.is_object()) fail("{}: {} is not an object of overrides", where, printable(key));
    for (const auto& [name, unused] : value.items()) {
      if (name == "bits" || name == "group_size" || name == "sym" || name == "desc_act" || skips) continue;
      constexpr std::array kHarmless{"mse", "damp_percent", "damp_auto_increment", "static_groups"};
      if (std::ranges::find(kHarmless, name) != kHarmless.end()) continue;
      fail("{}: {}: {} cannot be overridden; accepted: bits, group_size, sym, desc_act", where,
           printable(key), printable(name));
    }
    rules.push_back({NamePattern(pattern, where), skips, nlohmann::json::parse(value.dump())});
  }
  return rules;
}

struct GptqSettings {
  GptqLayout layout;
  bool head = false;
  std::vector<std::string> only;  ///< ends of the names of the modules that are quantized; empty: all
  std::vector<Rule> rules;
  std::string where;
};

void read_values(const JsonObject& fields, GptqLayout& layout) {
  layout.bits = static_cast<int>(fields.integer("bits", layout.bits));
  layout.group_size = fields.integer("group_size", layout.group_size);
  layout.symmetric = fields.boolean("sym", layout.symmetric);
  layout.needs_order = fields.boolean("desc_act", layout.needs_order);
  const bool any = layout.planar
                       ? layout.bits >= 2 && layout.bits <= 8
                       : layout.bits == 2 || layout.bits == 3 || layout.bits == 4 || layout.bits == 8;
  if (!any)
    fields.refuse("bits", layout.planar ? "2 to 8" : "2, 3, 4, 8; 5 to 7 with checkpoint_format gptq_p");
  if (layout.group_size != -1 && layout.group_size < 1) fields.refuse("group_size", "-1 or at least 1");
}

GptqSettings read_gptq_settings(const QuantizationConfig& config) {
  config.refuse_unknown({"bits",
                         "group_size",
                         "sym",
                         "desc_act",
                         "checkpoint_format",
                         "format",
                         "pack_dtype",
                         "is_marlin_format",
                         "dynamic",
                         "lm_head",
                         "modules_in_block_to_quantize",
                         "damp_percent",
                         "damp_auto_increment",
                         "static_groups",
                         "true_sequential",
                         "model_name_or_path",
                         "model_file_base_name",
                         "meta",
                         "batch_size",
                         "block_name_to_quantize",
                         "cache_block_outputs",
                         "dataset",
                         "exllama_config",
                         "max_input_length",
                         "model_seqlen",
                         "module_name_preceding_first_block",
                         "pad_token_id",
                         "tokenizer",
                         "use_cuda_fp16",
                         "use_exllama",
                         "disable_exllama",
                         "mse",
                         "backend",
                         "offload_to_disk",
                         "offload_to_disk_path",
                         "act_group_aware",
                         "hyb_act",
                         "version",
                         "quantizer",
                         "damping",
                         "failsafe",
                         "group_aware",
                         "hessian",
                         "method",
                         "weight_only"});
  config.refuse({"is_marlin_format"}, "Marlin's layout is another one");
  const JsonObject fields = config.object();
  GptqSettings settings;
  settings.where = config.where;
  if (const std::string type = fields.string("pack_dtype", "int32"); type != "int32")
    fields.refuse("pack_dtype", "int32");
  const char* key = fields.find("checkpoint_format") != nullptr ? "checkpoint_format" : "format";
  const std::string format = fields.string(key, "gptq");
  GptqLayout& layout = settings.layout;
  if (format == "gptq_v2" || format == "gptq_p") {
    layout.zeros = GptqLayout::Zeros::v2;
  } else if (format != "gptq") {
    fields.refuse(key, "gptq, gptq_v2, gptq_p");
  }
  layout.planar = format == "gptq_p";
  layout.zeros_label =
      fields.find(key) != nullptr ? fmt::format("{} {}", key, format) : "no checkpoint_format";
  if (!config.gptq_zeros.empty()) {
    layout.zeros = config.gptq_zeros == "v2" ? GptqLayout::Zeros::v2 : GptqLayout::Zeros::v1;
    layout.zeros_label.clear();
  }
  fields.integer("bits");  // must be there
  read_values(fields, layout);
  settings.head = fields.boolean("lm_head", false);
  settings.rules = read_dynamic(config);
  if (const auto* only = fields.find("modules_in_block_to_quantize"); only != nullptr) {
    const auto add = [&](const nlohmann::json& name) {
      if (!name.is_string()) fields.refuse("modules_in_block_to_quantize", "lists of names");
      settings.only.push_back(name.get<std::string>());
    };
    if (!only->is_array()) fields.refuse("modules_in_block_to_quantize", "lists of names");
    for (const auto& entry : *only) {
      if (!entry.is_array())
        add(entry);
      else
        for (const auto& name : entry) add(name);
    }
  }
  return settings;
}

std::optional<QuantizedModule> read_gptq_module(const GptqSettings& settings, ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  GptqLayout layout = settings.layout;
  bool quantized = request.kind == ModuleRequest::Kind::linear;
  std::string rule = settings.where;
  if (request.kind == ModuleRequest::Kind::head) {
    quantized = settings.head;
    rule += ": lm_head";
  }
  const auto ends = [&](const std::string& name) { return request.name.ends_with("." + name); };
  if (quantized && !settings.only.empty() && !std::ranges::any_of(settings.only, ends)) {
    quantized = false;
    rule += ": modules_in_block_to_quantize";
  }
  for (const Rule& own : settings.rules) {
    if (!own.pattern.matches_start(request.name)) continue;
    rule = settings.where + ": dynamic";
    quantized = quantized && !own.skips;
    if (!own.skips) read_values(JsonObject(own.values, rule), layout);
    break;
  }
  if (!check_agreement(tensors, "qweight", tensors.has("qweight"), quantized, !quantized, rule)) return {};
  return QuantizedModule{read_gptq_layout(tensors, layout), {}, {}};
}

}  // namespace

std::shared_ptr<CodedWeight> read_gptq_layout(ModuleTensors& tensors, const GptqLayout& layout) {
  const auto [rows, cols] = std::pair(tensors.request().rows, tensors.request().cols);
  const int bits = layout.bits;
  const bool straddles = 32 % bits != 0;
  if ((straddles ? cols % 32 : cols * bits % 32) != 0 || (straddles ? rows % 32 : rows * bits % 32) != 0) {
    fail("{}: {} × {} codes of {} bits do not fill whole words; accepted: multiples of {}",
         tensors.where("qweight"), rows, cols, bits, straddles ? 32 : 32 / bits);
  }
  const int64_t group = layout.group_size == -1 ? cols : std::min(layout.group_size, cols);
  const int64_t groups = divide_up(cols, group);
  const TensorView& codes = tensors.take("qweight", {cols * bits / 32, rows}, {DType::i32});
  const TensorView& zeros = tensors.take("qzeros", {groups, rows * bits / 32}, {DType::i32});
  const StoredScales scales = tensors.scales("scales", {groups, rows}, 1, rows);
  const int32_t* order = nullptr;
  if (tensors.has("g_idx")) {
    order = read_order(tensors, group, groups);
  } else if (layout.needs_order && groups > 1) {
    fail("{} is missing, which desc_act: true asks for", tensors.where("g_idx"));
  }
  auto weight = make_coded(
      tensors, fmt::format("{} {}-bit {}", layout.name, bits, group_text(layout.group_size)), group);
  weight->codes.layout = layout.planar ? CodeLayout::columns_planes : CodeLayout::columns_stream;
  weight->codes.bits = bits;
  weight->codes.data = codes.bytes.data();
  weight->codes.stride = rows;
  weight->scales = scales;
  weight->zeros.layout = layout.planar ? StoredZeros::Layout::row_planes : StoredZeros::Layout::row_stream;
  weight->zeros.data = zeros.bytes.data();
  weight->zeros.bits = bits;
  weight->zeros.stride = rows * bits / 32;
  if (layout.zeros == GptqLayout::Zeros::v1_fields || (layout.zeros == GptqLayout::Zeros::v1 && straddles)) {
    weight->zeros.add = 1;
    if (layout.zeros == GptqLayout::Zeros::v1) weight->zeros.mask = (1 << bits) - 1;
  } else if (layout.zeros == GptqLayout::Zeros::v1) {
    for (int shift = 0; shift < 32; shift += bits) weight->zeros.word_add |= 1U << shift;
  }
  weight->group_of = order;
  weight->groups = groups;
  check_version(tensors, *weight, layout, groups);
  return weight;
}

Quantization open_gptq(const QuantizationConfig& config) {
  auto settings = std::make_shared<const GptqSettings>(read_gptq_settings(config));
  Quantization result;
  result.read = [settings](ModuleTensors& tensors) { return read_gptq_module(*settings, tensors); };
  return result;
}

}  // namespace qeval::model
