#include "eval/tasks/program_run.h"

#if !defined(__linux__)

#include "base/error.h"

namespace qeval::eval {

bool program_passes(const std::string&, const ProgramLimits&) {
  fail("programs are not run here: what isolates them, namespaces and seccomp, is Linux's");
}

}  // namespace qeval::eval

#endif
