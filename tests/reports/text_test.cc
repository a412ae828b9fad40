#include "reports/text.h"

#include <gtest/gtest.h>

namespace qeval::reports {
namespace {

TEST(ReportText, CleanSpellsOutWhatActs) {
  EXPECT_EQ(clean("plain é 漢 😀"), "plain é 漢 😀");
  EXPECT_EQ(clean("a\nb\tc\r\nd"), "a b c d");
  EXPECT_EQ(clean(std::string_view("\0\x1b[31m\x7f", 7)), "\\u{0000}\\u{001B}[31m\\u{007F}");
  EXPECT_EQ(clean("\xff\xc0\xaf\xed\xa0\x80"), "\\xFF\\xC0\\xAF\\xED\\xA0\\x80");
  EXPECT_EQ(clean("a\u202Eb\u200Bc\u2028d"), "a\\u{202E}b\\u{200B}c\\u{2028}d");
  EXPECT_EQ(clean_lines("a\r\nb\n"), "a\nb\n");
}

TEST(ReportText, CleanCutsAtCodePoints) {
  EXPECT_EQ(clean("ééééé", 5), "ééééé");
  EXPECT_EQ(clean("éééééé", 5), "éééé…");
  EXPECT_EQ(clean(std::string(300, 'x'), 80), std::string(79, 'x') + "…");
}

TEST(ReportText, MarkdownShowsMarksInsteadOfObeyingThem) {
  EXPECT_EQ(markdown_text("a|b"), "a&#124;b");
  EXPECT_EQ(markdown_text("<script>&amp;"), "&lt;script&gt;&amp;amp;");
  EXPECT_EQ(markdown_text("`x` *y* [z](u) ![i] ~~ $m$ #h \\"),
            "&#96;x&#96; \\*y\\* \\[z\\](u) \\!\\[i\\] \\~\\~ \\$m\\$ \\#h \\\\");
  EXPECT_EQ(markdown_text("acc_norm _it_"), "acc_norm \\_it\\_");
  EXPECT_EQ(markdown_text("- item"), "\\- item");
  EXPECT_EQ(markdown_text("line\nbreak"), "line break");
}

TEST(ReportText, AFenceIsLongerThanAnyWithin) {
  EXPECT_EQ(markdown_code_block("a"), "```\na\n```\n");
  EXPECT_EQ(markdown_code_block("````\n# x"), "`````\n````\n# x\n`````\n");
}

TEST(ReportText, HtmlHasNoMarkupLeft) {
  EXPECT_EQ(html_text("<a href='x' title=\"y\">&"), "&lt;a href=&#39;x&#39; title=&quot;y&quot;&gt;&amp;");
  EXPECT_EQ(html_text(std::string_view("a\0b", 3)), "a\\u{0000}b");
}

TEST(ReportText, LatexHasNoCommandLeft) {
  EXPECT_EQ(latex_text("\\input{x}"), "\\textbackslash{}input\\{x\\}");
  EXPECT_EQ(latex_text("a_b & 5% #1 $x$ ~^"),
            "a\\_b \\& 5\\% \\#1 \\$x\\$ \\textasciitilde{}\\textasciicircum{}");
  EXPECT_EQ(latex_text("é ± − 漢"), "é $\\pm$ $-$ U+6F22");
}

TEST(ReportText, CsvFieldsAreNoFormulas) {
  EXPECT_EQ(csv_text("plain"), "plain");
  EXPECT_EQ(csv_text("a,\"b\"\nc"), "\"a,\"\"b\"\" c\"");
  for (const char* formula : {"=1+1", "+1", "-1", "@SUM(A1)"})
    EXPECT_EQ(csv_text(formula)[0], '\'') << formula;
  EXPECT_EQ(csv_text(" =1"), "' =1");
  EXPECT_EQ(csv_text("\t=1"), "' =1");
}

}  // namespace
}  // namespace qeval::reports
