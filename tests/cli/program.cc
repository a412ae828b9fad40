#include "program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

namespace qeval::test {

Outcome run_qeval(const std::filesystem::path& scratch, const std::vector<std::string>& arguments,
                  std::string_view input, const std::filesystem::path& output) {
  const std::string in = scratch / "stdin";
  const std::string out = output.empty() ? scratch / "stdout" : output;
  const std::string err = scratch / "stderr";
  write_file_atomically(in, input);

  std::vector<std::string> words{QEVAL_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kWrite, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kWrite, 0600);
  pid_t process = 0;
  const int failure = posix_spawn(&process, QEVAL_BINARY, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) fail("{}: cannot be started", QEVAL_BINARY);

  int state = 0;
  if (waitpid(process, &state, 0) != process) fail("{}: lost", QEVAL_BINARY);
  return {.status = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state),
          .output = output.empty() ? read_file(out) : std::string(),
          .error = read_file(err)};
}

}  // namespace qeval::test
