#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qeval::eval {

/// What the last \boxed{…} or \fbox{…} of a solution of MATH holds; nothing where there is none, or not in
/// the form that the harness takes apart.
std::optional<std::string> boxed_answer(const std::string& solution);

/// The normalisation of Hendrycks et al. 2021 (`strip_string`), by which two answers are the same. Nothing
/// where Python's code stops with an exception: then the answers are compared as they stand.
std::optional<std::string> hendrycks_form(std::string answer);

/// The normalisation of Lewkowycz et al. 2022, appendix D, as the harness's minerva_math has it now, or as
/// the leaderboard froze it.
std::string minerva_form(std::string answer, bool leaderboard);

/// What follows "Final Answer: The final answer is" in a text, or "[invalidanswer]".
std::string minerva_answer(const std::string& text);

}  // namespace qeval::eval
