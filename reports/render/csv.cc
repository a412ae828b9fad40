#include <charconv>
#include <cmath>

#include "reports/render/document.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

/// The shortest decimal that reads back as the same number; empty for what is absent or not finite.
std::string number(const std::optional<double>& value) {
  if (!value || !std::isfinite(*value)) return {};
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, *value);
  return {buffer, result.ptr};
}
std::string whole(const std::optional<int64_t>& value) {
  return value ? std::to_string(*value) : "";
}

constexpr const char* header =
    "run,method,variant,scheme,arithmetic,model,baseline,task,metric,documents,value,stderr,delta,delta_low,"
    "delta_high,"
    "p,p_holm,lost,gained,mean_kl,kl_99,top1_agreement,weight_bits,activation_bits,size_bytes,tokens_per_"
    "second,"
    "quantize_seconds\n";

std::string line(const Row& row, const Column& column, const Cell& cell) {
  const auto& difference = cell.difference;
  const auto& divergence = cell.divergence;
  const auto of = [](const auto& part, auto member) {
    return part ? std::optional<double>((*part).*member) : std::nullopt;
  };
  const bool flips = difference && difference->has_flips;
  const bool interval = difference && difference->interval;
  const std::vector<std::string> fields{csv_text(row.label),
                                        csv_text(row.method),
                                        csv_text(row.variant),
                                        csv_text(row.scheme),
                                        csv_text(row.arithmetic),
                                        csv_text(row.model),
                                        row.is_baseline ? "1" : "0",
                                        csv_text(column.task),
                                        csv_text(column.metric),
                                        std::to_string(column.documents),
                                        number(cell.value),
                                        number(cell.standard_error),
                                        number(of(difference, &Difference::delta)),
                                        interval ? number(difference->interval->low) : "",
                                        interval ? number(difference->interval->high) : "",
                                        number(of(difference, &Difference::p)),
                                        number(of(difference, &Difference::p_holm)),
                                        flips ? std::to_string(difference->lost) : "",
                                        flips ? std::to_string(difference->gained) : "",
                                        number(of(divergence, &Divergence::mean_kl)),
                                        number(of(divergence, &Divergence::kl_99)),
                                        number(of(divergence, &Divergence::top1_agreement)),
                                        number(row.costs.weight_bits),
                                        number(row.costs.activation_bits),
                                        whole(row.costs.size_bytes),
                                        number(row.costs.tokens_per_second),
                                        number(row.costs.quantize_seconds)};
  std::string out;
  for (size_t i = 0; i < fields.size(); ++i) out += (i > 0 ? "," : "") + fields[i];
  return out + "\n";
}

}  // namespace

std::string to_csv(const Report& report) {
  std::string out = header;
  for (const Row& row : report.rows) {
    for (size_t c = 0; c < report.columns.size(); ++c) {
      if (row.cells[c]) out += line(row, report.columns[c], *row.cells[c]);
    }
  }
  return out;
}

}  // namespace qeval::reports
