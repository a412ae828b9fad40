#include "tests/fuzz/tiny_session.h"

#include "tests/fuzz/tiny_model_folder.h"

namespace qeval::fuzz {

eval::Session& tiny_session() {
  static eval::Session session = [] {
    eval::SessionOptions options;
    options.model = tiny_model_folder();
    return eval::Session(options);
  }();
  return session;
}

}  // namespace qeval::fuzz
