#!/usr/bin/env bash
# Builds qeval for AArch64 on another machine and tests it under QEMU: the tests of kernels, of integers and of what they
# stand on; on CPUs with and without dot products; then scores and hashes against those of this machine's own build.
# Made for Debian 12, as root. Ends with the totals, and with a non-zero status if anything failed.
#
# usage: scripts/test_arm.sh [QEVAL]
# QEVAL is this machine's program; build/release/bin/qeval, which scripts/test.sh builds, unless it is given.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

qeval=${1:-build/release/bin/qeval}
program=build/aarch64/bin/qeval
# A CPU without dot products, one with those of one sign, and one with all there are.
cpus="cortex-a72 neoverse-n1 max"
tests=build/aarch64/bin/kernels_test
passed=0
failed=0

# count LOG: adds up what a log says, of gtest's cases or of a checker's lines.
count() {
  passed=$((passed + $(grep -cE '^(\[       OK \]|ok )' "$1" || true)))
  failed=$((failed + $(grep -cE '^(\[  FAILED  \] [^ ]+ \(|FAIL )' "$1" || true)))
}

step "Cross compiler, emulator and libraries"
if ! scripts/install_deps.sh g++-aarch64-linux-gnu qemu-user-static || ! sysroot=$(scripts/sysroot.sh arm64); then
  echo "AArch64: left out, its packages cannot be installed"
  exit 0
fi
run=(qemu-aarch64-static -L "$sysroot")

step "Build"
build aarch64 qeval kernels_test
file "$program"

for cpu in $cpus; do
  step "Tests on $cpu"
  status=0
  "${run[@]}" -cpu "$cpu" "$tests" --gtest_brief=0 >build/aarch64/"$cpu".log 2>&1 </dev/null || status=$?
  grep -E '^\[  (PASSED|FAILED)|tests? ran|^FAIL' build/aarch64/"$cpu".log || tail -n 20 build/aarch64/"$cpu".log
  before=$failed
  count build/aarch64/"$cpu".log
  if ((status != 0 && failed == before)); then
    failed=$((failed + 1))
  fi
  "${run[@]}" -cpu "$cpu" "$program" --version
done

step "No floating point among the integer kernels"
if OBJDUMP=aarch64-linux-gnu-objdump NM=aarch64-linux-gnu-nm tests/quant/no_float/check.sh \
  build/aarch64/quant/CMakeFiles/qeval_integer_run.dir/arithmetic/integer/run/*.o; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
fi

step "Scores of both architectures"
model=()
if file=${QEVAL_SMOLLM2_GGUF:-$(scripts/fetch_model.py)}; then
  model=(--model "$file")
else
  echo "scores of a real model: left out, it cannot be fetched"
fi
status=0
python3 tests/tools/compare_programs.py "$qeval" "$program" --run-other "${run[*]}" "${model[@]}" </dev/null \
  >build/aarch64/scores.log || status=$?
cat build/aarch64/scores.log
before=$failed
count build/aarch64/scores.log
if ((status != 0 && failed == before)); then
  failed=$((failed + 1))
fi

step "Summary"
echo "AArch64: $passed passed, $failed failed"
((failed == 0))
