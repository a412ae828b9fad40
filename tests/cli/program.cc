#include "program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

namespace qeval::test {

Running start_program(const std::filesystem::path& scratch, std::vector<std::string> words,
                      std::string_view input, const std::filesystem::path& output) {
  const std::string in = scratch / "stdin";
  Running running{.output = output.empty() ? scratch / "stdout" : output,
                  .error = scratch / "stderr",
                  .keeps_output = output.empty()};
  write_file_atomically(in, input);
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, running.output.c_str(), kWrite, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, running.error.c_str(), kWrite, 0600);
  const int failure =
      posix_spawnp(&running.process, words.front().c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) fail("{}: cannot be started", words.front());
  return running;
}

Outcome wait_for(const Running& running) {
  int state = 0;
  if (waitpid(running.process, &state, 0) != running.process) fail("a program was lost");
  return {.status = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state),
          .output = running.keeps_output ? read_file(running.output) : std::string(),
          .error = read_file(running.error)};
}

Outcome run_qeval(const std::filesystem::path& scratch, const std::vector<std::string>& arguments,
                  std::string_view input, const std::filesystem::path& output) {
  std::vector<std::string> words{QEVAL_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return wait_for(start_program(scratch, words, input, output));
}

}  // namespace qeval::test
