#pragma once

#include <filesystem>

#include "eval/tasks/task.h"

namespace qeval::eval {

/// Reads a user's description of a multiple-choice task, or of texts whose perplexity is measured, a JSON
/// object such as
///
///   {"name": "capitals", "data": "capitals.jsonl", "prompt": "Q: {{question}}\nA:", "choices": "options",
///   "gold": "answer"}
///   {"name": "news", "data": "news.jsonl", "text": "body"}
///
/// docs/adding-a-task.md lists the fields. Throws Error naming the file and the field for anything that is
/// missing, misspelt or of the wrong kind; the data file is read by load_documents() only.
Task read_user_task(const std::filesystem::path& path);

}  // namespace qeval::eval
