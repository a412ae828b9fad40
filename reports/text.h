#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qeval::reports {

/// Result files come from strangers: a model may be named like a script, a task hold pipes and line breaks.
/// Everything that was read passes through one of these on its way into a document.

/// Text without anything that acts instead of being read: bytes that are not UTF-8, control characters, and
/// characters that turn the direction of writing are spelled out (\xNN, \u{202E}); line breaks and tabs
/// become a space. With a limit, at most that many code points, the last an ellipsis.
std::string clean(std::string_view text, size_t limit = 0);
/// The same, but line breaks stay ("\n").
std::string clean_lines(std::string_view text, size_t limit = 0);

/// One line of GitHub-flavoured Markdown that shows `text` as it is, in a paragraph or a table's cell.
std::string markdown_text(std::string_view text);
/// The same within a line, where no list can begin.
std::string markdown_inline(std::string_view text);
/// `text` as a fenced code block, the fence longer than any in it. Lines stay.
std::string markdown_code_block(std::string_view text);

/// Content of an HTML or SVG element or quoted attribute; keeps line breaks.
std::string html_text(std::string_view text);

/// LaTeX text; letters beyond Latin Extended-A, which pdfLaTeX's fonts may lack, as U+XXXX.
std::string latex_text(std::string_view text);

/// A field of CSV (RFC 4180). One that a spreadsheet would take for a formula is preceded by an apostrophe.
std::string csv_text(std::string_view text);

/// "0.1.0 (commit 1a2b3c)": what a run was made by; raw text.
std::string program_text(const std::string& version, const std::string& commit);

}  // namespace qeval::reports
