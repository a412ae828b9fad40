#include "eval/distributed/split.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

namespace qeval::eval {
namespace {

/// Stretches per part: more even out the parts, fewer share more prefixes.
constexpr double kStretches = 24;
/// A stretch is not cut before it costs this many times the prefix that the next one would compute again.
constexpr double kPrefixes = 4;

int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

/// The input that sorts a document among others; empty for one without requests.
std::span<const int32_t> first_input(const DocumentRequests& document) {
  return document.requests.empty() ? std::span<const int32_t>() : document.requests.front().input();
}

/// The document's own prefix tree.
double cost_alone(std::span<const TokenRequest> requests, const TokenCosts& costs) {
  std::vector<const TokenRequest*> sorted;
  for (const TokenRequest& request : requests) sorted.push_back(&request);
  std::ranges::stable_sort(sorted, [](const TokenRequest* a, const TokenRequest* b) {
    return std::ranges::lexicographical_compare(a->input(), b->input());
  });
  double cost = 0;
  std::span<const int32_t> before;
  for (const TokenRequest* request : sorted) {
    const auto input = request->input();
    const int64_t length = std::ssize(input);
    const int64_t shared = common_prefix(input, before);
    cost += costs.tokens(static_cast<double>(shared), static_cast<double>(length));
    // A position that the request before scores too is answered with the same logits.
    const bool is_first = before.empty();
    const int64_t first_scored = length - request->scored;
    const int64_t scored = length - (is_first ? first_scored : std::max(first_scored, shared));
    cost += static_cast<double>(scored) * costs.scored;
    before = input;
  }
  return cost;
}

/// Entries [begin, end) of a task's list.
struct Stretch {
  size_t task, begin, end;
  double cost;
};

std::vector<Stretch> stretches(std::span<const std::vector<DocumentCost>> tasks, int64_t parts) {
  double total = 0;
  for (const auto& documents : tasks) {
    for (size_t i = 0; i < documents.size(); ++i) total += i == 0 ? documents[i].alone : documents[i].after;
  }
  const double most = total / (kStretches * static_cast<double>(parts));
  std::vector<Stretch> out;
  for (size_t task = 0; task < tasks.size(); ++task) {
    for (size_t i = 0; i < tasks[task].size(); ++i) {
      const DocumentCost& document = tasks[task][i];
      const double again = document.alone - document.after;
      if (i == 0 || (out.back().cost + document.after > most && out.back().cost >= kPrefixes * again)) {
        out.push_back({task, i, i + 1, document.alone});
      } else {
        out.back().end = i + 1;
        out.back().cost += document.after;
      }
    }
  }
  return out;
}

template <typename Visit>
void assign(std::span<const std::vector<DocumentCost>> tasks, int64_t parts, const Visit& visit) {
  std::vector<Stretch> all = stretches(tasks, parts);
  std::ranges::stable_sort(all, std::ranges::greater(), &Stretch::cost);
  using Load = std::pair<double, int64_t>;  // cost so far, part: equal ones go to the lowest part
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int64_t part = 0; part < parts; ++part) loads.emplace(0.0, part);
  for (const Stretch& stretch : all) {
    const auto [cost, part] = loads.top();
    loads.pop();
    loads.emplace(cost + stretch.cost, part);
    visit(stretch, part);
  }
}

}  // namespace

std::vector<DocumentCost> document_costs(std::span<const DocumentRequests> documents,
                                         const TokenCosts& costs) {
  std::vector<const DocumentRequests*> sorted;
  for (const DocumentRequests& document : documents) sorted.push_back(&document);
  std::ranges::stable_sort(sorted, [](const DocumentRequests* a, const DocumentRequests* b) {
    return std::ranges::lexicographical_compare(first_input(*a), first_input(*b));
  });
  std::vector<DocumentCost> out;
  std::span<const int32_t> before;
  for (const DocumentRequests* document : sorted) {
    const auto input = first_input(*document);
    const double alone = cost_alone(document->requests, costs);
    const double shared = costs.tokens(0, static_cast<double>(common_prefix(input, before)));
    out.push_back({document->document, alone, std::max(0.0, alone - shared)});
    before = input;
  }
  return out;
}

std::vector<std::vector<int64_t>> split_documents(std::span<const std::vector<DocumentCost>> tasks,
                                                  int64_t parts) {
  std::vector<std::vector<int64_t>> out;
  for (const auto& documents : tasks) out.emplace_back(documents.size());
  assign(tasks, parts, [&](const Stretch& stretch, int64_t part) {
    std::fill(out[stretch.task].begin() + static_cast<std::ptrdiff_t>(stretch.begin),
              out[stretch.task].begin() + static_cast<std::ptrdiff_t>(stretch.end), part);
  });
  return out;
}

std::vector<std::set<int64_t>> documents_of_part(std::span<const std::vector<DocumentCost>> tasks,
                                                 int64_t part, int64_t parts) {
  const std::vector<std::vector<int64_t>> parts_of = split_documents(tasks, parts);
  std::vector<std::set<int64_t>> out(tasks.size());
  for (size_t task = 0; task < tasks.size(); ++task) {
    for (size_t i = 0; i < tasks[task].size(); ++i) {
      if (parts_of[task][i] == part) out[task].insert(static_cast<int64_t>(tasks[task][i].document));
    }
  }
  return out;
}

std::vector<double> part_costs(std::span<const std::vector<DocumentCost>> tasks, int64_t parts) {
  std::vector<double> out(static_cast<size_t>(parts));
  assign(tasks, parts,
         [&](const Stretch& stretch, int64_t part) { out[static_cast<size_t>(part)] += stretch.cost; });
  return out;
}

}  // namespace qeval::eval
