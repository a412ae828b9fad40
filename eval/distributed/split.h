#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "eval/engine/cost_model.h"
#include "eval/engine/plan.h"

namespace qeval::eval {

/// What a document costs to score, in the unit of TokenCosts.
struct DocumentCost {
  size_t document = 0;
  double alone = 0;  ///< when it is the first of its prefix
  double after = 0;  ///< right behind the one before it in the list, with which it shares a prefix
};

/// A document's requests, and its number for the answer.
struct DocumentRequests {
  size_t document = 0;
  std::span<const TokenRequest> requests;
};

/// The costs of a task's documents, in the order of their first requests' tokens, so that neighbours share
/// most. Depends on nothing but the tokens and the costs.
std::vector<DocumentCost> document_costs(std::span<const DocumentRequests> documents,
                                         const TokenCosts& costs);

/// Gives every document to one of `parts` ≥ 1 parts, of about equal cost: neighbours in a list stay together
/// in stretches of about 1/24 of a part (longer ones where they share a long prefix), and the stretches go to
/// the part with the least so far, the costliest first (Graham's rule). Returns per list and entry the part,
/// from 0. Deterministic: the same documents are split alike on any machine. Some parts are empty where there
/// are fewer documents than parts.
std::vector<std::vector<int64_t>> split_documents(std::span<const std::vector<DocumentCost>> tasks,
                                                  int64_t parts);

/// The documents of one part, per list.
std::vector<std::set<int64_t>> documents_of_part(std::span<const std::vector<DocumentCost>> tasks,
                                                 int64_t part, int64_t parts);

/// The sum of each part's costs, shared prefixes counted once per stretch: what split_documents() balances.
std::vector<double> part_costs(std::span<const std::vector<DocumentCost>> tasks, int64_t parts);

}  // namespace qeval::eval
