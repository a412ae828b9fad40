#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "reports/report.h"

namespace qeval::reports {

/// Numbers as the report shows them, the same in every document. A minus is "−", what is absent "–", what is
/// not a number "NaN", infinities "∞".

inline constexpr const char* absent = "–";

/// Percent with one decimal, bits with three; perplexities with two, three below 10, none from 1,000 on.
std::string score_text(double value, Unit unit);
/// "± 1.4", with as many decimals as the value has; empty where there is none.
std::string error_text(const std::optional<double>& standard_error, double value, Unit unit);
/// "−1.2" (percentage points), "+2.9 %" (perplexity), "+0.013" (bits).
std::string delta_text(double delta, Unit unit);
/// "−2.0 … +0.4", in the unit of delta_text().
std::string interval_text(const eval::Interval& interval, Unit unit);
/// "", "*", "**", "***".
std::string mark(int significance);
std::string p_text(double p);  ///< "0.031", "<0.001", "–" for NaN

std::string count_text(int64_t count);                   ///< "12,345"
std::string percent_text(double fraction);               ///< "98.7 %"
std::string bytes_text(int64_t bytes);                   ///< decimal units: "538 MB"
std::string duration_text(double seconds);               ///< "13 min 4 s"
std::string hash_text(const std::string& hash);          ///< the first 12 digits
std::string ids_text(std::span<const int64_t> ids);      ///< "1, 504, 32"
std::string significant_text(double value, int digits);  ///< "0.0123", "1.2e-05"
std::string kl_text(double nats);                        ///< three significant digits

/// Display names of what results call "arc_challenge", "smoothquant", "acc_norm"; others stand as they are.
std::string task_title(const std::string& task);
std::string method_title(const std::string& method);

}  // namespace qeval::reports
