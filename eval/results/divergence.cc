#include "eval/results/divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "eval/results/checked_line.h"
#include "eval/results/sample_file.h"
#include "eval/results/statistics.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr int divergence_version = 1;

/// Nine significant digits, which give any float back, as a double whose shortest text they are.
ordered_json floats_to_json(std::span<const float> values) {
  ordered_json out = ordered_json::array();
  for (const float value : values) {
    out.push_back(std::isfinite(value)
                      ? ordered_json(std::strtod(fmt::format("{:.9g}", value).c_str(), nullptr))
                      : number_to_json(static_cast<double>(value)));
  }
  return out;
}

std::vector<float> floats(const OrderedJsonObject& line, const char* key) {
  const ordered_json& values = line.at(key);
  if (!values.is_array()) line.refuse(key, "an array of numbers of at least 0");
  std::vector<float> out;
  out.reserve(values.size());
  for (const ordered_json& value : values) {
    double number = std::numeric_limits<double>::quiet_NaN();
    if (value == "Infinity") {
      number = std::numeric_limits<double>::infinity();
    } else if (value.is_number()) {
      number = value.get<double>();
    } else if (!value.is_null()) {
      line.refuse(key, "an array of numbers of at least 0, null for NaN");
    }
    if (number < 0) line.refuse(key, "an array of numbers of at least 0, null for NaN");
    out.push_back(static_cast<float>(number));
  }
  return out;
}

}  // namespace

std::string divergence_header(std::string_view task, const DivergenceBase& base, int64_t kept) {
  return checked_line({{"divergence", divergence_version},
                       {"task", task},
                       {"kept", kept},
                       {"base",
                        {{"weight_hash", base.weight_hash},
                         {"arithmetic", base.arithmetic},
                         {"quantization_hash", base.quantization_hash},
                         {"samples_hash", base.samples_hash}}}},
                      "divergence header");
}

std::string divergence_line(const DocumentDivergence& document) {
  return checked_line({{"doc_id", document.doc_id},
                       {"token_hash", document.token_hash},
                       {"kl", floats_to_json(document.kl)},
                       {"slack", floats_to_json(document.slack)},
                       {"disagreements", document.disagreements}},
                      fmt::format("document {}", document.doc_id));
}

DocumentDivergence parse_divergence_line(std::string_view line, std::string_view where) {
  const ordered_json json = parse_checked_line(line, where);
  const OrderedJsonObject fields(json, std::string(where));
  DocumentDivergence out;
  out.doc_id = fields.count("doc_id");
  out.token_hash = fields.string("token_hash");
  out.kl = floats(fields, "kl");
  out.slack = floats(fields, "slack");
  if (out.slack.size() != out.kl.size()) fields.refuse("slack", "as long as \"kl\"");
  out.disagreements = fields.counts("disagreements");
  for (size_t i = 0; i < out.disagreements.size(); ++i) {
    if (out.disagreements[i] >= std::ssize(out.kl) ||
        (i > 0 && out.disagreements[i] <= out.disagreements[i - 1]))
      fields.refuse("disagreements", fmt::format("ascending, below the {} positions", out.kl.size()));
  }
  return out;
}

std::string divergence_file(std::string_view task) {
  return file_of_task("divergence", task, ".jsonl");
}

CompanionFormat divergence_format(const std::map<std::string, DivergenceBase>& base_of_task, int64_t kept) {
  std::set<std::string> tasks;
  for (const auto& [task, unused] : base_of_task) tasks.insert(task);
  return {"divergence", ".jsonl",
          [base_of_task, kept](std::string_view task) {
            return divergence_header(task, base_of_task.at(std::string(task)), kept) + "\n";
          },
          [](std::string_view bytes, const std::string& where,
             const std::function<void(int64_t, uint64_t)>& visit) {
            return for_each_line(bytes, where, Tail::drop, [&](const TextLine& line) {
              visit(parse_divergence_line(line.text, line.where).doc_id, line.text.size() + 1);
            });
          },
          std::move(tasks)};
}

TaskDivergence read_divergence(const std::filesystem::path& path, std::string_view task) {
  const MappedFile file(path);
  TaskDivergence out;
  for_each_line(file.text(), path.string(), Tail::refuse, [&](const TextLine& line) {
    if (line.number > 1) {
      out.documents.push_back(parse_divergence_line(line.text, line.where));
      if (out.documents.size() > 1 && out.documents.back().doc_id <= out.documents.end()[-2].doc_id) {
        fail("{}: document {} follows document {}: ascending order expected", line.where,
             out.documents.back().doc_id, out.documents.end()[-2].doc_id);
      }
      return;
    }
    const ordered_json json = parse_checked_line(line.text, line.where);
    const OrderedJsonObject header(json, line.where);
    if (header.count("divergence") != divergence_version)
      header.refuse("divergence", fmt::format("{}, the version that is known", divergence_version));
    if (header.string("task") != task) header.refuse("task", printable(task));
    out.kept = header.count("kept");
    const OrderedJsonObject base = header.object("base");
    out.base = {base.string("weight_hash"), base.string("arithmetic"), base.string("quantization_hash"),
                base.string("samples_hash")};
  });
  if (file.text().empty()) fail("{}: empty: a header line expected", path.string());
  return out;
}

DivergenceSummary summarize(std::span<const DocumentDivergence> documents) {
  DivergenceSummary out;
  out.documents = std::ssize(documents);
  std::vector<double> values;
  double sum = 0, slack = 0;
  int64_t disagreements = 0;
  for (const DocumentDivergence& document : documents) {
    values.insert(values.end(), document.kl.begin(), document.kl.end());
    double of_document = 0;
    for (const float kl : document.kl) of_document += static_cast<double>(kl);
    for (const float kl : document.kl) sum += static_cast<double>(kl);
    if (!document.kl.empty()) out.blocks.push_back({of_document, std::ssize(document.kl)});
    for (const float more : document.slack) slack += static_cast<double>(more);
    disagreements += std::ssize(document.disagreements);
  }
  out.positions = std::ssize(values);
  if (values.empty()) return out;
  const auto count = static_cast<double>(values.size());
  out.mean_kl = sum / count;
  out.mean_kl_upper = (sum + slack) / count;
  out.max_kl = std::isnan(sum) ? sum : std::ranges::max(values);
  out.kl_99 = quantile(std::move(values), 0.99);
  out.top1_agreement = 1 - static_cast<double>(disagreements) / count;
  return out;
}

}  // namespace qeval::eval
