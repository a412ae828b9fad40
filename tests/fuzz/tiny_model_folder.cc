#include "tests/fuzz/tiny_model_folder.h"

#include "tests/fuzz/support.h"
#include "tests/model/byte_model.h"

namespace qeval::fuzz {

const std::filesystem::path& tiny_model_folder() {
  static const std::filesystem::path folder = [] {
    test::write_byte_model(scratch() / "model");
    return scratch() / "model";
  }();
  return folder;
}

}  // namespace qeval::fuzz
