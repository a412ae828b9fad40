#include <algorithm>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/setting.h"
#include "base/unicode.h"
#include "tests/message_of.h"

namespace qeval {
namespace {

std::filesystem::path scratch(const char* name) {
  return std::filesystem::path(testing::TempDir()) / name;
}

TEST(Printable, EscapesWhatATerminalWouldObeyAndCutsAtCharacters) {
  EXPECT_EQ(printable("a\x1b[31mb\n"), "a\\x1b[31mb\\x0a");
  EXPECT_EQ(printable("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m\xc2\xa0|"),
            "\\xc2\\x9b31m\xc2\xa0|");  // U+009B begins an escape too
  EXPECT_EQ(printable("\xff|"), "\\xff|");
  EXPECT_EQ(printable("abcdef", 3), "abc…");
  EXPECT_EQ(printable("\xc3\xa9\xc3\xa9\xc3\xa9", 3), "\xc3\xa9\xc3\xa9…");
}

TEST(Sha256, MatchesTheStandardsExample) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().update("a").update("bc").hex(), sha256_hex("abc"));
}

TEST(Unicode, FindsTheFirstMalformedByte) {
  EXPECT_EQ(find_invalid_utf8("caf\xc3\xa9"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("ab\xc0\x80"), 2U);         // overlong
  EXPECT_EQ(find_invalid_utf8("\xed\xa0\x80"), 0U);       // surrogate
  EXPECT_EQ(find_invalid_utf8("x\xf4\x90\x80\x80"), 1U);  // above U+10FFFF
  EXPECT_EQ(find_invalid_utf8("x\xc3"), 1U);              // cut
}

TEST(File, TellsGitLfsPointers) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
  EXPECT_TRUE(is_lfs_pointer(pointer));
  EXPECT_FALSE(is_lfs_pointer(pointer.substr(0, 20)));
  EXPECT_FALSE(is_lfs_pointer(pointer + std::string(2000, 'x')));  // a text that begins like one
  EXPECT_TRUE(is_lfs_pointer("version https://hawser.github.com/spec/v1\noid sha256:00\nsize 1\n"));
  EXPECT_THROW(refuse_lfs_pointer(pointer, "model.safetensors"), Error);
  refuse_lfs_pointer("GGUF", "model.gguf");
}

TEST(Unicode, CountsNormalizesAndStripsAsPythonDoes) {
  EXPECT_EQ(count_code_points("e\xcc\x81 \xf0\x9f\x98\x80"), 4U);
  EXPECT_EQ(normalize("e\xcc\x81", NormalForm::nfc), "\xc3\xa9");
  EXPECT_EQ(normalize("\xc3\xa9", NormalForm::nfd), "e\xcc\x81");
  EXPECT_EQ(normalize("\xef\xac\x81\xc3\xa9", NormalForm::nfkc), "fi\xc3\xa9");  // the ligature fi
  EXPECT_EQ(normalize("\xef\xac\x81\xc3\xa9", NormalForm::nfkd), "fie\xcc\x81");
  EXPECT_EQ(strip("\xc2\xa0\x1f x \xe3\x80\x80\n"), "x");
  EXPECT_EQ(strip_left(" \t"), "");
  EXPECT_EQ(strip_right("x\xe2\x80\x8b"), "x\xe2\x80\x8b");  // zero-width space is no white space
}

TEST(Unicode, TextFilesReadTheSameWhereverTheyWereWritten) {
  EXPECT_EQ(without_byte_order_mark("\xEF\xBB\xBFtext"), "text");
  EXPECT_EQ(without_byte_order_mark("te\xEF\xBB\xBFxt"), "te\xEF\xBB\xBFxt");
  EXPECT_EQ(with_unix_line_ends("a\r\nb\r\r\nc\rd\r"), "a\nb\r\nc\rd\r");
  EXPECT_EQ(with_unix_line_ends(""), "");
}

// Each pair is what Python 3.11 says.
TEST(Unicode, MapsCaseAsPythonDoes) {
  EXPECT_EQ(lower("ÀÉ ΟΔΟΣ ΑΣ' Σ"), "àé οδος ας' σ");  // a Σ that ends a word, and one that is a word
  EXPECT_EQ(lower("AΣ.B ΑΣ\u0301Α \u00ADΣ"), "aσ.b ασ\u0301α \u00ADσ");
  EXPECT_EQ(lower("AΣ.\u2003Bß"), "aς.\u2003bß");
  EXPECT_EQ(lower("İI"), "i\u0307i");
  EXPECT_EQ(lower("ⅣΣ ⓐΣ"), "ⅳς ⓐς");
  EXPECT_EQ(lower("a\xFFΣ"), "a\xFFσ");  // what is no text is no letter
  const std::vector<std::pair<const char*, const char*>> titles = {
      {"ßA", "Ssa"}, {"ﬁNE", "Fine"}, {"ﬃX", "Ffix"}, {"ŉA", "ʼNa"},          {"ǆ X", "ǅ x"},
      {"և", "Եւ"},   {"ﬗa", "Մխa"},   {"ᾳΣ", "ᾼς"},   {"ᾷ", "Α\u0342\u0345"}, {"ΐ", "Ι\u0308\u0301"},
      {"İI", "İi"},  {"éA", "Éa"},    {"ΣΣ", "Σς"},   {"აბ", "აბ"},           {" aB", " ab"},
      {"", ""},      {"ẞß", "ẞß"},    {"iI", "Ii"},   {"ǰX", "J\u030Cx"},     {"ⓐB", "Ⓐb"},
  };
  for (const auto& [text, title] : titles) EXPECT_EQ(capitalize(text), title) << text;
}

TEST(AtomicFile, ReplacesWholeOrNotAtAll) {
  const auto path = scratch("qeval_atomic.txt");
  write_file_atomically(path, "old");
  {
    AtomicFile abandoned(path);
    abandoned.write("half");
  }
  EXPECT_EQ(read_file(path), "old");
  write_file_atomically(path, "new");
  EXPECT_EQ(read_file(path), "new");
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path())) {
    EXPECT_EQ(entry.path().string().find("qeval_atomic.txt.tmp"), std::string::npos);
  }
  std::filesystem::remove(path);
}

/// A device or pipe of that name must not become a file; a link goes on pointing at what was replaced.
TEST(AtomicFile, ReplacesFilesOnly) {
  const auto pipe = scratch("qeval_pipe"), file = scratch("qeval_linked.txt"), link = scratch("qeval_link");
  for (const auto& path : {pipe, file, link}) std::filesystem::remove(path);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(write_file_atomically(pipe, "x"), Error);
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  write_file_atomically(file, "old");
  std::filesystem::create_symlink(file, link);
  write_file_atomically(link, "new");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(read_file(file), "new");
  std::filesystem::remove(file);
  EXPECT_THROW(write_file_atomically(link, "lost"), Error);  // which would replace the link
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  for (const auto& path : {pipe, file, link}) std::filesystem::remove(path);
}

TEST(AtomicFile, SaysWhereItCannotWrite) {
  try {
    write_file_atomically(scratch("qeval_no_such_folder") / "x", "");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("qeval_no_such_folder/x"), std::string::npos);
  }
}

TEST(MappedFile, MapsBytesEmptyFilesAndNothingElse) {
  const auto path = scratch("qeval_mapped.txt");
  write_file_atomically(path, "bytes");
  MappedFile file(path);
  const MappedFile moved = std::move(file);
  EXPECT_EQ(moved.text(), "bytes");
  write_file_atomically(path, "");
  EXPECT_TRUE(MappedFile(path).bytes().empty());
  EXPECT_THROW(MappedFile(scratch(".")), Error);
  EXPECT_THROW(MappedFile(scratch("qeval_missing")), Error);
  std::filesystem::remove(path);
}

/// A repository that was cloned without Git LFS has these in the place of its large files.
TEST(LfsPointer, IsRefusedHoweverItIsRead) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, '0') + "\nsize 499723\n";
  const auto path = scratch("qeval_pointer.bin");
  write_file_atomically(path, pointer);
  for (const std::string& message :
       {message_of([&] { read_file(path); }), message_of([&] { MappedFile{path}; })}) {
    EXPECT_NE(message.find("qeval_pointer.bin: a Git LFS pointer stands in place"), std::string::npos)
        << message;
    EXPECT_NE(message.find("git lfs pull"), std::string::npos) << message;
  }
  EXPECT_FALSE(is_lfs_pointer("# version https://git-lfs.github.com/spec/v1\n"));
  EXPECT_FALSE(is_lfs_pointer(pointer + std::string(1024, ' ')));  // longer than a pointer may be
  write_file_atomically(path, "a text on " + pointer);
  EXPECT_NO_THROW(read_file(path));
  std::filesystem::remove(path);
}

TEST(ReadFile, DoesNotWaitForAPipeThatNobodyWrites) {
  const auto path = scratch("qeval_pipe");
  std::filesystem::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(read_file(path), "");
  EXPECT_THROW(MappedFile{path}, Error);
  std::filesystem::remove(path);
}

TEST(MappedFile, GivesPagesBackAndStillHasItsBytes) {
  constexpr size_t kSize = size_t{16} << 20;
  const auto path = scratch("qeval_pages.txt");
  write_file_atomically(path, std::string(kSize, 'p'));
  const auto resident_file_pages = [] {
    int64_t size = 0, resident = 0, shared = 0;
    std::ifstream("/proc/self/statm") >> size >> resident >> shared;
    return shared;
  };
  const MappedFile file(path);
  EXPECT_EQ(std::ranges::count(file.text(), 'p'), std::ssize(file.text()));
  const int64_t before = resident_file_pages();
  file.release_pages();
  EXPECT_LT(resident_file_pages(), before - static_cast<int64_t>(kSize / 2) / ::sysconf(_SC_PAGESIZE));
  EXPECT_EQ(std::ranges::count(file.text(), 'p'), std::ssize(file.text()));
  std::filesystem::remove(path);
}

TEST(Setting, IsSpelledAsTheFrontEndDoes) {
  EXPECT_EQ(setting("max-length"), "max_length");
  spell_settings_as_options();
  EXPECT_EQ(setting("max-length"), "--max-length");
}

}  // namespace
}  // namespace qeval
