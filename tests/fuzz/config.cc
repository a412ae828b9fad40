#include "model/config.h"

#include <nlohmann/json.hpp>

#include "tests/fuzz/support.h"

namespace qeval::fuzz {

// What the unified layout writes must read back as the same model.
void config(Input input) {
  const auto file = scratch().write("config.json", text_of(input));
  accepted([&] {
    const model::ModelConfig read = model::read_config(file);
    const std::string written = model::unified_config(read, "float32").dump();
    const auto copy = scratch().write("written.json", written);
    const bool again = accepted([&] {
      const model::ModelConfig same = model::read_config(copy);
      if (model::unified_config(same, "float32").dump() != written)
        defect("config.json changes when copied", written);
    });
    if (!again) defect("config.json that was written cannot be read", written);
  });
}

}  // namespace qeval::fuzz
