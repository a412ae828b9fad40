#include "datasets/wikitext.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace qeval::datasets {
namespace {

TEST(WikitextPages, BeginAtHeadingsOfTheFirstLevel) {
  const std::vector<Page> pages = wikitext_pages(
      " \n = First = \n \n Text . \n = = Section = = \n = = = Deeper = = = \n = Second ( song ) = \n \n More "
      ".\n");
  ASSERT_EQ(pages.size(), 2U);
  EXPECT_EQ(pages[0].text, " = First = \n \n Text . \n = = Section = = \n = = = Deeper = = = ");
  EXPECT_EQ(pages[0].line, 2);
  EXPECT_EQ(pages[1].text, " = Second ( song ) = \n \n More .");
  EXPECT_EQ(pages[1].line, 7);
}

TEST(WikitextPages, KeepTextBeforeTheFirstHeadingUnlessBlank) {
  const std::vector<Page> pages = wikitext_pages("Preface\n = One = \nText");
  ASSERT_EQ(pages.size(), 2U);
  EXPECT_EQ(pages[0].text, "Preface");
  EXPECT_EQ(wikitext_pages("\n\n = One = \n").size(), 1U);
  EXPECT_TRUE(wikitext_pages("").empty());
  EXPECT_TRUE(wikitext_pages(" \n \n").empty());
}

TEST(WikitextPages, KeepTheLastLineEndsButOne) {
  EXPECT_EQ(wikitext_pages("= A =\ntext\n\n")[0].text, "= A =\ntext\n");
}

// With its carriage returns a page of Windows' line ends had a perplexity a thousand times as large.
TEST(WikitextPages, HaveNoWindowsLineEnds) {
  const std::vector<Page> pages = wikitext_pages(" = A = \r\n \r\n One . \r\n = B = \r\n Two\r\n");
  ASSERT_EQ(pages.size(), 2U);
  EXPECT_EQ(pages[0].text, " = A = \n \n One . ");
  EXPECT_EQ(pages[1].text, " = B = \n Two");
  EXPECT_EQ(pages[1].line, 4);
}

// One case per step, in the order of the steps.
TEST(WikitextDetokenize, UndoesEachStep) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"the boys ' hats", "the boys' hats"},
      {"well @-@ known", "well-known"},
      {"1 @,@ 000 and 3 @.@ 5", "1,000 and 3.5"},
      {"a : b ; c . d ! e ? f , g", "a: b; c. d! e? f, g"},
      {"end .", "end ."},
      {"( a ( b ) c )", "(a ( b) c )"},
      {"( spread\n over lines )", "(spread\nover lines)"},
      {"[ x ] { y }", "[x] {y}"},
      {"said \" yes \" and \" no \"", "said \"yes\" and \"no\""},
      {"called ' it ' so", "called 'it' so"},
      {"(  )", "()"},
      {"( never closed", "( never closed"},
      {"= = = = H = = = =", "==== H ===="},
      {"= = = H = = =", "=== H ==="},
      {"= = H = =", "== H =="},
      {"20 \u00B0 C", "20\u00B0C"},
      {"one \n two", "one\ntwo"},
      {"about N people", "about 1 people"},
      {"Teddy 's", "Teddy's"},
      {"(\u00A0x\u2003)", "(x)"},
      {"/' 5/' 6/ /' 7/ /' 88/", "/'[0-9]/' 6/ /'[0-9]/ /' 88/"},  // the harness's own slip
  };
  for (const auto& [raw, plain] : cases) EXPECT_EQ(wikitext_detokenize(raw), plain) << raw;
}

// Replacing runs from left to right over what was there: " . . " loses one space, not two.
TEST(WikitextDetokenize, DoesNotReadItsOwnOutput) {
  EXPECT_EQ(wikitext_detokenize("a . . b"), "a. . b");
  EXPECT_EQ(wikitext_detokenize("a \" b \" c \" d"), "a \"b\" c \" d");
}

TEST(CountWords, CountsPiecesBetweenWhiteSpace) {
  EXPECT_EQ(count_words("one two\n\nthree"), 3);
  EXPECT_EQ(count_words(" one two \n"), 4);  // the empty first and last pieces count
  EXPECT_EQ(count_words(""), 1);
  EXPECT_EQ(count_words("a\u00A0b\u2003c"), 3);
}

}  // namespace
}  // namespace qeval::datasets
