#include <span>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/pickle.h"
#include "tests/model/fixtures.h"

namespace qeval::model {
namespace {

using fixtures::error_of;
using fixtures::pickled_tensor;
using fixtures::raw;
using testing::ElementsAre;
using testing::HasSubstr;

class PyTorch : public testing::Test {
 protected:
  std::unique_ptr<Checkpoint> open(const std::string& bytes) {
    fixtures::write(folder_ / "x.bin", bytes);
    return open_pytorch(folder_ / "x.bin");
  }
  std::string refusal(const std::string& bytes) {
    return error_of([&] { open(bytes); });
  }
  /// A dict written item by item, with one storage of 24 bytes.
  std::string file(const std::string& items) {
    return fixtures::pytorch("\x80\x02}(" + items + "u.", {raw(std::vector<float>{1, 2, 3, 4, 5, 6})});
  }
  fixtures::TemporaryFolder folder_;
};

void read_all(const Checkpoint& checkpoint) {
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (info(tensor.dtype).is_float) fixtures::values_of(tensor);
  }
}

std::vector<fixtures::Tensor> tensors_of_every_type() {
  return {fixtures::f32_tensor("f32", {2, 2}, {1, 2, 3, 4}),
          {.name = "f64", .dtype = DType::f64, .shape = {1}, .bytes = raw(0.5)},
          {.name = "f16", .dtype = DType::f16, .shape = {2}, .bytes = raw(uint32_t{0xC0003C00})},
          {.name = "bf16", .dtype = DType::bf16, .shape = {2}, .bytes = raw(uint32_t{0xC0003F80})},
          {.name = "i64", .dtype = DType::i64, .shape = {1}, .bytes = raw(int64_t{7})},
          {.name = "i32", .dtype = DType::i32, .shape = {}, .bytes = raw(int32_t{7})}};
}

TEST_F(PyTorch, ReadsTensorsOfEveryType) {
  const auto checkpoint = open(fixtures::pytorch(tensors_of_every_type()));
  EXPECT_EQ(checkpoint->format(), "pytorch");
  ASSERT_EQ(checkpoint->tensors().size(), 6U);
  EXPECT_THAT(checkpoint->require("f32").shape, ElementsAre(2, 2));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("f32")), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("f64")), ElementsAre(0.5F));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("f16")), ElementsAre(1, -2));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("bf16")), ElementsAre(1, -2));
  EXPECT_EQ(checkpoint->require("i64").dtype, DType::i64);
  EXPECT_EQ(checkpoint->require("i32").bytes.size(), 4U);
}

TEST_F(PyTorch, TensorsMayShareAStorage) {
  const auto checkpoint = open(file(pickled_tensor("whole", "FloatStorage", "0", 6, 0, {2, 3}, {3, 1}) +
                                    pickled_tensor("row", "FloatStorage", "0", 6, 3, {1, 3}, {99, 1})));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("whole")), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("row")), ElementsAre(4, 5, 6));
}

// nn.Parameter objects and memo references, as a dict saved by hand has them.
TEST_F(PyTorch, ReadsParametersAndTheMemo) {
  const std::string tensor = pickled_tensor("p", "FloatStorage", "0", 6, 0, {6}, {1});
  const std::string key = tensor.substr(0, 6), value = tensor.substr(6);
  const std::string q = std::string("X") + raw(uint32_t{1}) + "q";
  const auto checkpoint = open(file(key + "ctorch._utils\n_rebuild_parameter\n(" + value +
                                    "\x88"
                                    "ccollections\nOrderedDict\n)RtRq\x05" +
                                    q + "h\x05"));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("p")), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(checkpoint->require("q").bytes.data(), checkpoint->require("p").bytes.data());
}

TEST_F(PyTorch, RefusesEveryTruncation) {
  const auto path = folder_ / "x.bin";
  fixtures::expect_error_at_every_length(path, fixtures::pytorch(tensors_of_every_type()),
                                         [&] { open_pytorch(path); });
}

TEST_F(PyTorch, RefusesEveryTruncationOfThePickle) {
  const std::string whole = fixtures::pickled_dict(tensors_of_every_type());
  const auto bytes = std::as_bytes(std::span(whole));
  EXPECT_EQ(read_tensor_dict(bytes, "x").size(), 6U);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW(read_tensor_dict(bytes.first(length), "x"), Error) << length;
  }
}

TEST_F(PyTorch, SurvivesEveryCorruptedByte) {
  const auto path = folder_ / "x.bin";
  const std::string whole = fixtures::pytorch({fixtures::f32_tensor("a", {2, 2}, {1, 2, 3, 4})});
  fixtures::survive_every_corrupted_byte(path, whole, [&] { read_all(*open_pytorch(path)); });
}

TEST_F(PyTorch, RefusesToExecuteAnything) {
  const std::string message =
      refusal(fixtures::pytorch("\x80\x02"
                                "cos\nsystem\nX\x02\0\0\0id\x85R.",
                                {}));
  EXPECT_THAT(message,
              testing::AllOf(HasSubstr("os.system"), HasSubstr("refused"), HasSubstr("OrderedDict")));
  EXPECT_THAT(refusal(fixtures::pytorch("\x80\x02"
                                        "c__builtin__\neval\n.",
                                        {})),
              HasSubstr("__builtin__.eval"));
  // Control characters of a hostile name do not reach the terminal.
  EXPECT_THAT(refusal(fixtures::pytorch("\x80\x02"
                                        "cos\n\x1b[2J\n.",
                                        {})),
              HasSubstr("\\x1b"));
}

// What PyTorch's own loader would import; and names that only look like those that are known.
TEST_F(PyTorch, RefusesEveryGlobalThatIsNotOnTheList) {
  const std::vector<std::string> globals{"posix\nsystem",
                                         "builtins\nexec",
                                         "builtins\ngetattr",
                                         "subprocess\nPopen",
                                         "runpy\n_run_code",
                                         "torch\nload",
                                         "torch\nhub",
                                         "torch.storage\n_load_from_bytes",
                                         "torch._utils\n_rebuild_tensor",
                                         "torch._utils\n_rebuild_tensor_v2.x",
                                         "torch\n_utils _rebuild_tensor_v2",
                                         "torch\nByteStorage",
                                         "torch\nfloatstorage",
                                         " torch\nFloatStorage",
                                         "torch\nFloatStorage ",
                                         "collections\nOrderedDict\r",
                                         "collections\ndefaultdict",
                                         "__main__\nOrderedDict",
                                         std::string("collections\0\nOrderedDict", 24),
                                         "\nOrderedDict",
                                         "collections\n"};
  for (const std::string& global : globals) {
    EXPECT_THAT(refusal(fixtures::pytorch("\x80\x02"
                                          "c" +
                                              global + "\n)R.",
                                          {})),
                HasSubstr("which is refused"))
        << global;
  }
}

TEST_F(PyTorch, RefusesUnknownOpcodesByOffset) {
  // Protocol 0's INST and protocol 2's EXT1 are among those that can call.
  for (const std::string opcode : {"ios\nsystem\n", "\x82\x01", "\x81", "\x93", "2", "P"}) {
    const std::string message = refusal(fixtures::pytorch("\x80\x02}" + opcode + ".", {}));
    EXPECT_THAT(message,
                HasSubstr(fmt::format("opcode {:#04x} at offset 3", static_cast<uint8_t>(opcode[0]))));
  }
  EXPECT_THAT(refusal(fixtures::pytorch("\x80\x04}.", {})), HasSubstr("protocol 4; accepted: 2"));
}

TEST_F(PyTorch, RefusesMalformedPickles) {
  const auto pickle = [&](const std::string& program) {
    return refusal(fixtures::pytorch("\x80\x02" + program, {}));
  };
  EXPECT_THAT(pickle("."), HasSubstr("does not leave one value"));
  EXPECT_THAT(pickle("}}."), HasSubstr("does not leave one value"));
  EXPECT_THAT(pickle("}.}"), HasSubstr("bytes after its end"));
  EXPECT_THAT(pickle("K\1."), HasSubstr("does not hold a dict"));
  EXPECT_THAT(pickle("s."), HasSubstr("empty stack"));
  EXPECT_THAT(pickle("(s."), HasSubstr("mark as a value"));
  EXPECT_THAT(pickle("t."), HasSubstr("mark that is missing"));
  EXPECT_THAT(pickle("h\1."), HasSubstr("not stored"));
  EXPECT_THAT(pickle("}(K\1u."), HasSubstr("without a value"));
  EXPECT_THAT(pickle("}(K\1K\1u."), HasSubstr("key that is no string"));
  EXPECT_THAT(pickle("K\1K\1K\1s."), HasSubstr("what is no dict"));
  EXPECT_THAT(pickle("K\1K\1a."), HasSubstr("no list"));
  EXPECT_THAT(pickle("K\1)R."), HasSubstr("no global"));
  EXPECT_THAT(pickle("ctorch\nFloatStorage\n)R."), HasSubstr("calls torch FloatStorage"));
  EXPECT_THAT(pickle(std::string("}(X\1\0\0\0aK\1u.", 12)), HasSubstr("a is not a tensor"));
  EXPECT_THAT(pickle("\x8a\x09" + std::string(9, '\1') + "."), HasSubstr("more than 64 bits"));
  // Found by reading: a tuple of a million values, passed and copied again every five bytes, took hours.
  EXPECT_THAT(pickle("ctorch._utils\n_rebuild_parameter\n(" + std::string(8, 'N') + "tR."),
              HasSubstr("more than 7 arguments"));
}

// A million nested tuples: no recursion may follow them, neither in reading nor in freeing.
TEST_F(PyTorch, SurvivesDeepNesting) {
  EXPECT_THAT(refusal(fixtures::pytorch("\x80\x02)" + std::string(300'000, '\x85') + ".", {})),
              HasSubstr("does not hold a dict"));
  EXPECT_THAT(refusal(fixtures::pytorch("\x80\x02)" + std::string(2'000'000, '\x85') + ".", {})),
              HasSubstr("more than a million values"));
}

TEST_F(PyTorch, RefusesBadTensors) {
  const auto tensor = [&](int64_t elements, int64_t offset, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& stride, const char* type = "FloatStorage",
                          const char* key = "0") {
    return refusal(file(pickled_tensor("a", type, key, elements, offset, shape, stride)));
  };
  EXPECT_THAT(tensor(6, 0, {6}, {1}, "FloatStorage", "1"), HasSubstr("storage 1 is missing"));
  EXPECT_THAT(tensor(6, 0, {6}, {1}, "FloatStorage", "../0"), HasSubstr("storage ../0 is missing"));
  EXPECT_THAT(tensor(6, 0, {6}, {1}, "ByteStorage"), HasSubstr("torch.ByteStorage, which is refused"));
  EXPECT_THAT(tensor(7, 0, {6}, {1}), HasSubstr("24 bytes, not 7 elements"));
  EXPECT_THAT(tensor(int64_t{1} << 62, 0, {6}, {1}), HasSubstr("24 bytes"));
  EXPECT_THAT(tensor(-1, 0, {6}, {1}), HasSubstr("another way"));
  EXPECT_THAT(tensor(6, 0, {7}, {1}), HasSubstr("exceeds its storage of 6"));
  EXPECT_THAT(tensor(6, 1, {6}, {1}), HasSubstr("exceeds"));
  EXPECT_THAT(tensor(6, 7, {0}, {1}), HasSubstr("exceeds"));
  EXPECT_THAT(tensor(6, INT64_MAX, {1}, {1}), HasSubstr("exceeds"));
  EXPECT_THAT(tensor(6, -1, {1}, {1}), HasSubstr("another way"));
  EXPECT_THAT(tensor(6, 0, {-1}, {1}), HasSubstr("impossible"));
  EXPECT_THAT(tensor(6, 0, {int64_t{1} << 40, int64_t{1} << 40}, {1, 1}), HasSubstr("impossible"));
  EXPECT_THAT(tensor(6, 0, {3, 2}, {1, 3}), HasSubstr("stride [1, 3] of shape [3, 2]"));
  EXPECT_THAT(tensor(6, 0, {3}, {0}), HasSubstr("contiguous"));
  EXPECT_THAT(tensor(6, 0, {2, 3}, {1}), HasSubstr("another way"));
  EXPECT_THAT(tensor(6, 0, std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1)),
              HasSubstr("8 dimensions"));
  const std::string item = pickled_tensor("a", "FloatStorage", "0", 6, 0, {6}, {1});
  EXPECT_THAT(refusal(file(item + item)), HasSubstr("tensor a occurs twice"));
}

TEST_F(PyTorch, RefusesOtherContainers) {
  const std::string pickle = fixtures::pickled_dict({});
  const auto archive = [&](const std::vector<std::pair<std::string, std::string>>& entries,
                           uint16_t method = 0) { return refusal(fixtures::zip(entries, method)); };
  EXPECT_THAT(archive({{"a/data.pkl", pickle}}, 8), HasSubstr("compressed (method 8)"));
  EXPECT_THAT(archive({{"a/data.pkl", pickle}, {"a/byteorder", "big"}}), HasSubstr("byteorder is big"));
  EXPECT_THAT(archive({{"a/other", pickle}}), HasSubstr("no NAME/data.pkl"));
  EXPECT_THAT(archive({{"a/data.pkl", pickle}, {"a/data.pkl", pickle}}), HasSubstr("occurs twice"));
  EXPECT_THAT(refusal("\x80\x02\x8a\nl\xfc\x9c"), HasSubstr("legacy PyTorch file (bare pickle)"));
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  EXPECT_THAT(refusal(tar), HasSubstr("legacy PyTorch file (tar)"));
  EXPECT_THAT(refusal("hello"), HasSubstr("not a PyTorch file"));
}

TEST_F(PyTorch, ReadsOlderFilesWithoutByteOrder) {
  const auto tensors = std::vector{fixtures::f32_tensor("a", {1}, {2.5F})};
  const auto checkpoint = open(fixtures::zip(
      {{"archive/data.pkl", fixtures::pickled_dict(tensors)}, {"archive/data/0", tensors[0].bytes}}));
  EXPECT_THAT(fixtures::values_of(checkpoint->require("a")), ElementsAre(2.5F));
}

}  // namespace
}  // namespace qeval::model
