#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "quant/calibrate/calibration_text.h"
#include "quant/grid/qcfg.h"
#include "tests/fuzz/support.h"
#include "tests/tiny_model.h"

namespace qeval::fuzz {

// What is accepted must survive being written and read again.
void quantization(Input input) {
  static const model::ModelConfig config = test::TinyModel().config;
  const std::string_view text = text_of(input);
  accepted([&] {
    const quant::QuantConfig qcfg = quant::parse_qcfg(text, config, "qcfg");
    const std::string written = quant::qcfg_json(qcfg, config).dump();
    const auto write_again = [&] {
      return quant::qcfg_json(quant::parse_qcfg(written, config, "qcfg"), config).dump();
    };
    if (write_again() != written) defect("default_qcfg.json changes when copied", written);
  });
  accepted([&] {
    const quant::ActRanges ranges = quant::parse_act_ranges(text, config, "ranges");
    const std::string written = quant::act_ranges_json(ranges, config).dump();
    if (quant::act_ranges_json(quant::parse_act_ranges(written, config, "ranges"), config).dump() != written)
      defect("act_dict.json changes when copied", written);
    (void)quant::complete_ranges(quant::make_qcfg(config, {}), ranges, config, "ranges");
  });
  accepted([&] {
    const auto sketch = quant::NgramSketch::from_json(parse_strict_json(text, "sketch"), "sketch");
    if (quant::NgramSketch::from_json(nlohmann::json::parse(sketch.to_json().dump()), "sketch").to_json() !=
        sketch.to_json())
      defect("the sketch changes when copied", text);
  });
  const auto file = scratch().write("ids.jsonl", text);
  accepted([&] { (void)quant::read_ids(file, config.vocab_size, {}, {}); });
}

}  // namespace qeval::fuzz
