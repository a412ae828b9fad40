#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::datasets {

/// A page and the line of the file, from 1, that it begins on.
struct Page {
  std::string text;
  int64_t line = 0;
};

/// The pages of a raw WikiText file, as they stand in it but for Windows line ends, which become "\n". A line
/// opens a page where it is a heading of the first level (`= Title =`, not `= = Section = =`); a page is its
/// lines joined by "\n", without one after the last. What comes before the first heading is dropped if blank,
/// else it is a page. `raw` must be UTF-8.
std::vector<Page> wikitext_pages(std::string_view raw);

/// Any text as one page, Windows line ends become "\n"; none where it is blank.
std::vector<Page> whole_page(std::string_view raw);

/// Undoes WikiText's tokenization: spaces around punctuation, inside brackets and quotes, and the @-@ @,@ @.@
/// marks. The steps and their order are those that published word perplexities rest on; linear in the length
/// of the page.
std::string wikitext_detokenize(std::string_view page);

/// Words of a page as perplexities count them: pieces between runs of white space, where a page that begins
/// or ends with white space has an empty piece there, which counts.
int64_t count_words(std::string_view page);

}  // namespace qeval::datasets
