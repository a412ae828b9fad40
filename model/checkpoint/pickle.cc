#include "model/checkpoint/pickle.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "model/checkpoint/byte_reader.h"

namespace qeval::model {
namespace {

/// Values refer to each other by index, so that no nesting in a file, however deep, recurses here.
using Index = uint32_t;

/// Bounds on what a hostile pickle can make us hold, orders of magnitude above what a real state dict needs:
/// values are shared through the memo, so a small file can refer to a large one many times.
constexpr size_t kMaxValues = 1U << 20;
constexpr size_t kMaxStorageKeyBytes = 64;
constexpr size_t kMaxPickleDimensions = 8;

enum class PickleKind : uint8_t {
  mark,
  constant,
  integer,
  string,
  tuple,
  list,
  dict,
  global,
  storage,
  tensor
};

struct PickleValue {
  PickleKind kind = PickleKind::constant;
  int64_t integer = 0;
  std::string text;                              // string, global ("module name"), storage (key)
  std::vector<Index> items;                      // tuple; list
  std::vector<std::pair<Index, Index>> entries;  // dict
  DType dtype = DType::f32;                      // storage
  Index storage = 0;                             // tensor
  int64_t offset = 0;                            // tensor
  std::vector<int64_t> shape, stride;            // tensor
};

constexpr std::string_view kOrderedDict = "collections OrderedDict";
constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view kRebuildParameter = "torch._utils _rebuild_parameter";

constexpr std::array<std::pair<std::string_view, DType>, 6> kStorages{{{"torch FloatStorage", DType::f32},
                                                                       {"torch DoubleStorage", DType::f64},
                                                                       {"torch HalfStorage", DType::f16},
                                                                       {"torch BFloat16Storage", DType::bf16},
                                                                       {"torch LongStorage", DType::i64},
                                                                       {"torch IntStorage", DType::i32}}};

constexpr std::string_view kAcceptedGlobals =
    "collections.OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter, "
    "torch.FloatStorage, "
    "DoubleStorage, HalfStorage, BFloat16Storage, LongStorage, IntStorage";

std::optional<DType> storage_type(std::string_view global) {
  for (const auto& [name, dtype] : kStorages) {
    if (name == global) return dtype;
  }
  return std::nullopt;
}

class Interpreter {
 public:
  Interpreter(std::span<const std::byte> pickle, const std::string& where)
      : reader_(pickle, where), where_(where) {}

  std::vector<PickledTensor> run() {
    while (step()) {
    }
    if (reader_.remaining() != 0) damaged("has bytes after its end");
    if (stack_.size() != 1) damaged("does not leave one value");
    return tensors_of(stack_.back());
  }

 private:
  [[noreturn]] void damaged(std::string_view what) const {
    fail("{}: the pickle {} (offset {}); accepted: a state dict written by torch.save", where_, what,
         reader_.offset());
  }

  // Stack

  PickleValue& push(PickleKind kind) {
    if (values_.size() >= kMaxValues) damaged("makes more than a million values");
    stack_.push_back(static_cast<Index>(values_.size()));
    values_.emplace_back().kind = kind;
    return values_.back();
  }

  Index pop() {
    if (stack_.empty()) damaged("takes from an empty stack");
    const Index top = stack_.back();
    stack_.pop_back();
    if (values_[top].kind == PickleKind::mark) damaged("uses a mark as a value");
    return top;
  }

  /// Everything above the latest mark, which goes too.
  std::vector<Index> pop_to_mark() {
    const auto mark = std::find_if(stack_.rbegin(), stack_.rend(),
                                   [&](Index index) { return values_[index].kind == PickleKind::mark; });
    if (mark == stack_.rend()) damaged("takes to a mark that is missing");
    std::vector<Index> items(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return items;
  }

  PickleValue& top(PickleKind kind, std::string_view complaint) {
    if (stack_.empty() || values_[stack_.back()].kind != kind) damaged(complaint);
    return values_[stack_.back()];
  }

  const PickleValue& typed(Index index, PickleKind kind, std::string_view complaint) const {
    if (values_[index].kind != kind) damaged(complaint);
    return values_[index];
  }

  void push_integer(int64_t value) { push(PickleKind::integer).integer = value; }

  void push_tuple(std::vector<Index> items) { push(PickleKind::tuple).items = std::move(items); }

  void push_short_tuple(size_t count) {
    std::vector<Index> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }

  // Opcodes

  /// Runs one opcode; false after STOP.
  bool step() {
    const auto opcode = reader_.read<uint8_t>("an opcode");
    switch (opcode) {
      case 0x80:
        read_protocol();
        break;
      case '.':
        return false;
      case '(':
        push(PickleKind::mark);
        break;
      case 'N':
        push(PickleKind::constant);
        break;
      case 0x88:
        push_integer(1);
        break;  // True
      case 0x89:
        push_integer(0);
        break;  // False
      case 'K':
        push_integer(reader_.read<uint8_t>("an integer"));
        break;
      case 'M':
        push_integer(reader_.read<uint16_t>("an integer"));
        break;
      case 'J':
        push_integer(reader_.read<int32_t>("an integer"));
        break;
      case 0x8a:
        read_long();
        break;
      case 'G':  // a float, of which nothing here needs the value
        reader_.take(8, "a float");
        push(PickleKind::constant);
        break;
      case 'X': {
        const auto length = reader_.read<uint32_t>("a string");
        const auto text = reader_.take_text(length, "a string");
        push(PickleKind::string).text = text;
        break;
      }
      case ')':
        push_tuple({});
        break;
      case 0x85:
        push_short_tuple(1);
        break;
      case 0x86:
        push_short_tuple(2);
        break;
      case 0x87:
        push_short_tuple(3);
        break;
      case 't':
        push_tuple(pop_to_mark());
        break;
      case ']':
        push(PickleKind::list);
        break;
      case 'a':
        append({pop()});
        break;
      case 'e':
        append(pop_to_mark());
        break;
      case '}':
        push(PickleKind::dict);
        break;
      case 's': {
        const Index value = pop();
        const Index key = pop();
        set_items({key, value});
        break;
      }
      case 'u':
        set_items(pop_to_mark());
        break;
      case 'q':
        put(reader_.read<uint8_t>("a memo index"));
        break;
      case 'r':
        put(reader_.read<uint32_t>("a memo index"));
        break;
      case 'h':
        get(reader_.read<uint8_t>("a memo index"));
        break;
      case 'j':
        get(reader_.read<uint32_t>("a memo index"));
        break;
      case 'c':
        read_global();
        break;
      case 'Q':
        read_storage();
        break;
      case 'R':
        reduce();
        break;
      case 'b':
        build();
        break;
      default:
        fail(
            "{}: pickle opcode {:#04x} at offset {} is refused; accepted: those that torch.save needs for a "
            "dict of "
            "tensors",
            where_, opcode, reader_.offset() - 1);
    }
    return true;
  }

  void read_protocol() {
    const auto protocol = reader_.read<uint8_t>("the protocol");
    if (protocol != 2) fail("{}: pickle protocol {}; accepted: 2, torch.save's own", where_, protocol);
  }

  /// LONG1: a byte count and a little-endian two's complement integer, here at most 64 bits.
  void read_long() {
    const auto length = reader_.read<uint8_t>("an integer");
    if (length > 8) damaged("holds an integer of more than 64 bits");
    const auto bytes = reader_.take(length, "an integer");
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    const bool negative = length > 0 && (static_cast<unsigned>(bytes.back()) & 0x80U) != 0;
    if (negative && length < 8) value |= ~uint64_t{0} << (8 * length);
    push_integer(static_cast<int64_t>(value));
  }

  std::string read_line() {
    std::string line;
    for (;;) {
      const auto c = reader_.read<char>("a global");
      if (c == '\n') return line;
      line += c;
    }
  }

  void read_global() {
    const std::string module = read_line();
    const std::string name = read_line();
    std::string global = module + ' ' + name;
    if (global != kOrderedDict && global != kRebuildTensor && global != kRebuildParameter &&
        !storage_type(global)) {
      fail("{}: the pickle names the global {}.{}, which is refused; accepted: {}", where_, printable(module),
           printable(name), kAcceptedGlobals);
    }
    push(PickleKind::global).text = std::move(global);
  }

  void append(const std::vector<Index>& items) {
    PickleValue& list = top(PickleKind::list, "appends to what is no list");
    list.items.insert(list.items.end(), items.begin(), items.end());
  }

  void set_items(const std::vector<Index>& items) {
    if (items.size() % 2 != 0) damaged("sets a key without a value");
    PickleValue& dict = top(PickleKind::dict, "sets items of what is no dict");
    for (size_t i = 0; i < items.size(); i += 2) dict.entries.emplace_back(items[i], items[i + 1]);
  }

  void put(uint32_t index) {
    const Index value = pop();
    stack_.push_back(value);
    memo_[index] = value;
  }

  void get(uint32_t index) {
    const auto it = memo_.find(index);
    if (it == memo_.end()) damaged("recalls what it has not stored");
    stack_.push_back(it->second);
  }

  /// BINPERSID: ('storage', storage type, key, device, element count).
  void read_storage() {
    constexpr std::string_view kComplaint = "describes a storage in another way than torch.save";
    const std::vector<Index> fields = typed(pop(), PickleKind::tuple, kComplaint).items;
    if (fields.size() != 5 || typed(fields[0], PickleKind::string, kComplaint).text != "storage")
      damaged(kComplaint);
    const auto dtype = storage_type(typed(fields[1], PickleKind::global, kComplaint).text);
    std::string key = typed(fields[2], PickleKind::string, kComplaint).text;
    const int64_t elements = typed(fields[4], PickleKind::integer, kComplaint).integer;
    if (!dtype || elements < 0 || key.size() > kMaxStorageKeyBytes) damaged(kComplaint);
    PickleValue& storage = push(PickleKind::storage);
    storage.dtype = *dtype;
    storage.text = std::move(key);
    storage.integer = elements;
  }

  /// A call of one of the known globals, "performed" on descriptions.
  void reduce() {
    const PickleValue& tuple = typed(pop(), PickleKind::tuple, "calls without a tuple of arguments");
    constexpr size_t kMostArguments =
        7;  // of _rebuild_tensor_v2; a long tuple could be passed again and again
    if (tuple.items.size() > kMostArguments) damaged("calls with more than 7 arguments");
    const std::vector<Index> arguments = tuple.items;
    const std::string callee = typed(pop(), PickleKind::global, "calls what is no global").text;
    if (callee == kOrderedDict && arguments.empty()) {
      push(PickleKind::dict);
    } else if (callee == kRebuildTensor) {
      rebuild_tensor(arguments);
    } else if (callee == kRebuildParameter && !arguments.empty()) {
      typed(arguments[0], PickleKind::tensor, "wraps what is no tensor as a parameter");
      stack_.push_back(arguments[0]);
    } else {
      fail(
          "{}: the pickle calls {} with {} arguments; accepted: OrderedDict(), _rebuild_tensor_v2, "
          "_rebuild_parameter",
          where_, callee, arguments.size());
    }
  }

  /// (storage, offset, shape, stride, requires_grad, hooks[, metadata])
  void rebuild_tensor(const std::vector<Index>& arguments) {
    constexpr std::string_view kComplaint = "describes a tensor in another way than torch.save";
    if (arguments.size() < 6 || arguments.size() > 7) damaged(kComplaint);
    typed(arguments[0], PickleKind::storage, kComplaint);
    const int64_t offset = typed(arguments[1], PickleKind::integer, kComplaint).integer;
    std::vector<int64_t> shape = integers(arguments[2]), stride = integers(arguments[3]);
    if (offset < 0 || shape.size() != stride.size()) damaged(kComplaint);
    PickleValue& tensor = push(PickleKind::tensor);
    tensor.storage = arguments[0];
    tensor.offset = offset;
    tensor.shape = std::move(shape);
    tensor.stride = std::move(stride);
  }

  std::vector<int64_t> integers(Index index) const {
    const auto& items = typed(index, PickleKind::tuple, "has a shape that is no tuple").items;
    if (items.size() > kMaxPickleDimensions) damaged("has a shape of more than 8 dimensions");
    std::vector<int64_t> result;
    result.reserve(items.size());
    for (const Index item : items) {
      result.push_back(typed(item, PickleKind::integer, "has a shape that is not of integers").integer);
    }
    return result;
  }

  /// BUILD sets an object's attributes; a state dict has one, `_metadata`, of which no tensor depends.
  void build() {
    typed(pop(), PickleKind::dict, "sets attributes from what is no dict");
    top(PickleKind::dict, "sets attributes of what is no dict");
  }

  std::vector<PickledTensor> tensors_of(Index root) const {
    std::vector<PickledTensor> tensors;
    std::unordered_set<std::string_view> names;
    for (const auto& [key, item] : typed(root, PickleKind::dict, "does not hold a dict").entries) {
      const std::string& name = typed(key, PickleKind::string, "has a key that is no string").text;
      if (!names.insert(name).second) fail("{}: tensor {} occurs twice", where_, printable(name));
      const PickleValue& value = values_[item];
      if (value.kind != PickleKind::tensor) {
        fail("{}: {} is not a tensor; accepted: a dict of tensors and nothing else", where_, printable(name));
      }
      const PickleValue& storage = values_[value.storage];
      // Not reserved beforehand: the number of entries is a stranger's.
      // NOLINTNEXTLINE(performance-inefficient-vector-operation)
      tensors.push_back({.name = name,
                         .dtype = storage.dtype,
                         .storage_key = storage.text,
                         .storage_elements = storage.integer,
                         .offset = value.offset,
                         .shape = value.shape,
                         .stride = value.stride});
    }
    return tensors;
  }

  ByteReader reader_;
  const std::string& where_;
  std::vector<PickleValue> values_;
  std::vector<Index> stack_;
  std::unordered_map<uint32_t, Index> memo_;
};

}  // namespace

std::vector<PickledTensor> read_tensor_dict(std::span<const std::byte> pickle, const std::string& where) {
  return Interpreter(pickle, where).run();
}

}  // namespace qeval::model
