// Ranks that work together, here as threads that meet in one place.
#include "base/peers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ranks.h"

namespace qeval {
namespace {

using test::run_ranks;

std::string joint_error(const Peers& peers, const std::function<void()>& work) {
  try {
    together(peers, work);
  } catch (const JointError& error) {
    return error.what();
  }
  return "";
}

TEST(Peers, AProcessAloneNeedsNobody) {
  const Peers alone;
  EXPECT_THAT(gather(alone, "me"), testing::ElementsAre("me"));
  EXPECT_EQ(from_first(alone, "word"), "word");
  EXPECT_TRUE(decided_by_first(alone, true));
  EXPECT_THROW(together(alone, [] { throw UsageError("no"); }), UsageError);
  std::vector<float> sum{1, 2};
  add_in_order(alone, {true}, std::vector<float>{10, 20}, sum);
  EXPECT_THAT(sum, testing::ElementsAre(11, 22));
}

TEST(Peers, HearWhatTheFirstSays) {
  run_ranks(3, [](const Peers& peers) {
    EXPECT_EQ(from_first(peers, std::to_string(peers.rank)), "0");
    EXPECT_FALSE(decided_by_first(peers, peers.rank > 0));
    EXPECT_EQ(gather(peers, std::to_string(peers.rank))[2], "2");
  });
}

TEST(Peers, FailTogether) {
  run_ranks(3, [](const Peers& peers) {
    EXPECT_EQ(joint_error(peers, [] {}), "");
    EXPECT_EQ(joint_error(peers, [] { fail("no such file"); }), "no such file");
    const auto only = [&](int64_t rank) {
      return joint_error(peers, [&] {
        if (peers.rank == rank) fail("the disk is full");
      });
    };
    EXPECT_EQ(only(0), "the disk is full");
    EXPECT_EQ(only(2), "rank 2 of 3: the disk is full");
    EXPECT_THROW(on_first(peers, [] { throw UsageError("no"); }), UsageError);
  });
}

TEST(Peers, AddInTheOrderOfRanks) {
  // In this order and in no other: 1e8 + 1 = 1e8 in float.
  run_ranks(3, [](const Peers& peers) {
    std::vector<float> sum(300'000, 1.0F);
    const std::vector<float> values(sum.size(), peers.rank == 0 ? 1e8F : peers.rank == 1 ? -1e8F : 1.0F);
    add_in_order(peers, {true, true, true}, values, sum);
    EXPECT_EQ(sum.front(), 1.0F);
    EXPECT_EQ(sum.back(), 1.0F);
    add_in_order(peers, {false, false, true}, values, sum);
    EXPECT_EQ(sum.back(), 2.0F);
  });
}

}  // namespace
}  // namespace qeval
