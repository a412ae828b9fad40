#pragma once

namespace qeval::reports {

/// The style sheet of a report's page, without the rules of plots.
extern const char* const page_style;

/// Sorts tables by their headings and filters the flipped examples. The page is whole without it.
extern const char* const page_script;

}  // namespace qeval::reports
