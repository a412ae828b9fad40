#include "quant/methods/learn/learn_state.h"

#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/setting.h"
#include "base/strict_json.h"

namespace qeval::quant {
namespace {

constexpr std::string_view kMagic = "QEVALRUN";

/// Calls visit(values) for every vector of the parameters, in the order of the file.
template <typename State, typename Visit>
void visit_values(State& state, const Visit& visit) {
  for (auto& block : state.parameters) {
    const auto all = [&](auto& parameters) {
      for (auto& p : parameters) visit(p.value);
    };
    all(block.let);
    all(block.upper);
    all(block.lower);
    all(block.factor);
    all(block.scale);
    all(block.offset);
    all(block.code);
  }
}

struct Header {
  std::string fingerprint;
  int64_t step, optimizer_steps;
  std::vector<size_t> moments;  // their sizes
};

std::span<const std::byte> take_bytes(std::span<const std::byte>& rest, size_t size,
                                      const std::string& file) {
  if (size > rest.size()) fail("{}: damaged: it ends too early", file);
  const auto part = rest.first(size);
  rest = rest.subspan(size);
  return part;
}

Header take_header(std::span<const std::byte>& rest, const std::string& file) {
  const auto text = [](std::span<const std::byte> bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  if (text(take_bytes(rest, kMagic.size(), file)) != kMagic)
    fail("{}: not the state of a learning run", file);
  uint64_t length = 0;
  std::memcpy(&length, take_bytes(rest, sizeof length, file).data(), sizeof length);
  const auto json = parse_strict_json(text(take_bytes(rest, length, file)), file + ": damaged header");
  try {
    Header header{json.at("fingerprint").get<std::string>(), json.at("step").get<int64_t>(),
                  json.at("optimizer_steps").get<int64_t>(), json.at("moments").get<std::vector<size_t>>()};
    if (header.step >= 0 && header.optimizer_steps >= 0) return header;
  } catch (const nlohmann::json::exception&) {  // told below
  }
  fail("{}: damaged header", file);
}

}  // namespace

std::string step_json(const StepRecord& record) {
  nlohmann::ordered_json line{{"step", record.step}, {"epoch", record.epoch}};
  line["layer"] = record.layer >= 0 ? nlohmann::ordered_json(record.layer) : nullptr;
  line["loss"] = record.loss;
  line["let_lr"] = record.rates[0];
  line["lwc_lr"] = record.rates[1];
  line["lrl_lr"] = record.rates[2];
  if (record.rates[3] > 0) line["code_lr"] = record.rates[3];
  return line.dump();
}

LearnState initial_state(const LearnProblem& problem, const LearnSettings& settings) {
  const bool learns_codes = settings.rates[static_cast<size_t>(ParameterGroup::code)].rate > 0;
  const LearnOptions options{.modified = settings.modified,
                             .ranges = settings.method != LearnMethod::omniquant,
                             .codes = problem.codes ? &*problem.codes : nullptr,
                             .coded = learns_codes ? problem.model : nullptr};
  const model::ModelConfig& config = problem.model->config;
  LearnState state;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    state.parameters.push_back(
        initial_parameters<float>(config, problem.qcfg, problem.ranges, layer, options));
  }
  return state;
}

void save_state(const std::filesystem::path& file, const LearnState& state, const std::string& fingerprint) {
  std::vector<size_t> sizes;
  for (const AdamW::Moments& m : state.moments) sizes.push_back(m.first.size());
  const std::string header = nlohmann::ordered_json{
      {"fingerprint", fingerprint},
      {"step", state.step},
      {"optimizer_steps", state.optimizer_steps},
      {"moments", sizes}}.dump();
  const uint64_t length = header.size();
  AtomicFile out(file);
  out.write(kMagic);
  out.write(std::as_bytes(std::span(&length, 1)));
  out.write(header);
  const auto write = [&](const std::vector<float>& values) { out.write(std::as_bytes(std::span(values))); };
  visit_values(state, write);
  for (const AdamW::Moments& m : state.moments) {
    write(m.first);
    write(m.second);
  }
  out.commit();
}

void load_state(const std::filesystem::path& file, const std::string& fingerprint, LearnState& state) {
  const MappedFile mapped(file);
  std::span<const std::byte> rest = mapped.bytes();
  const Header header = take_header(rest, file.string());
  if (header.fingerprint != fingerprint) {
    fail("{}: the run was started with other settings, weights or calibration; start without {}",
         file.string(), setting("resume"));
  }
  state.step = header.step;
  state.optimizer_steps = header.optimizer_steps;
  const auto read = [&](std::vector<float>& values) {
    const auto bytes = take_bytes(rest, values.size() * sizeof(float), file.string());
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  };
  visit_values(state, read);
  state.moments.clear();
  for (const size_t size : header.moments) {
    if (size > rest.size() / (2 * sizeof(float))) fail("{}: damaged: it ends too early", file.string());
    AdamW::Moments moments{std::vector<float>(size), std::vector<float>(size)};
    read(moments.first);
    read(moments.second);
    state.moments.push_back(std::move(moments));
  }
  if (!rest.empty()) fail("{}: damaged: {} bytes too many", file.string(), rest.size());
}

int64_t saved_steps(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  std::span<const std::byte> rest = mapped.bytes();
  return take_header(rest, file.string()).step;
}

}  // namespace qeval::quant
