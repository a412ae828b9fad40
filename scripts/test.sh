#!/usr/bin/env bash
# Installs, builds and runs every test; made for a bare Debian 12 and about 20 minutes of two cores.
# Ends with the totals, and with a non-zero status if anything failed.
#
# usage: scripts/test.sh [SHARED]
# SHARED is a folder of more reference data: once the tests are through as they are without it, those that were skipped
# for want of it are run again, and its goldens and references are compared.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

golden_kinds="float rtn smooth fake integer grad train"  # what check_goldens.py --only is run for
reference_tasks="arc_easy,piqa"           # what check_reference.py is run for
sanitized_tests="base datasets model"     # the tests that run under the address and undefined sanitizers too
shared=${1:-}
# What tests compare with: the harness's table maker and aggregations, without the frameworks it runs models by.
# Its interface of models, and pandas, are used by the tests of the Python package.
compared_packages=(safetensors numpy jinja2 pyyaml pytablewriter requests sacrebleu tqdm pandas --alone lm_eval==0.4.13)
model_file=""
skipped_tests=""                          # of the last run_ctest, one a line

first_build=(-DQEVAL_UNITY=ON)            # a folder of one's own stays as it was configured

passed=0
failed=0
summary=""

# note TEXT PASSED FAILED: a line of the closing summary.
note() {
  summary+="$1"$'\n'
  passed=$((passed + $2))
  failed=$((failed + $3))
}

# run_ctest PRESET [ctest options]: ctest says "…% tests passed, F tests failed out of N", and counts what it skipped
# among the passed.
run_ctest() {
  local preset=$1 log="build/$1/ctest.log" line total bad skipped
  skipped_tests=""
  shift
  ctest --preset "$preset" -j "$(nproc)" --no-tests=error "$@" </dev/null 2>&1 | tee "$log" || true
  line=$(grep -E 'tests passed, .* out of' "$log" | tail -n 1 || true)
  if [ -z "$line" ]; then
    note "$preset: ctest ran no test" 0 1
    return
  fi
  bad=$(sed -E 's/.*, ([0-9]+) tests? failed out of.*/\1/' <<<"$line")
  total=${line##* }
  skipped_tests=$(sed -nE 's/^[[:space:]]*[0-9]+ - (.*) \(Skipped\)$/\1/p' "$log")
  skipped=$(grep -c . <<<"$skipped_tests" || true)
  note "$preset: $((total - bad - skipped)) tests passed, $bad failed, $skipped skipped" $((total - bad - skipped)) "$bad"
  if ((skipped > 0)); then
    note "$(sed 's/^/  skipped: /' <<<"$skipped_tests")" 0 0
  fi
  if ((bad > 0)); then
    note "$(sed -n '/^The following tests FAILED:/,$s/^[[:space:]]*[0-9]* - /  FAILED: /p' "$log")" 0 0
  fi
}

# run_check TITLE COMMAND...: the checkers print "ok   case" and "FAIL case".
run_check() {
  local title=$1 log=build/check.log good bad status=0
  shift
  "$@" </dev/null 2>&1 | tee "$log" || status=$?
  good=$(grep -c '^ok ' "$log" || true)
  bad=$(grep -c '^FAIL ' "$log" || true)
  if ((status != 0 && bad == 0)); then
    bad=1
    echo "FAIL $title: ended with status $status" | tee -a "$log"
  fi
  note "$title: $good ok, $bad failed" "$good" "$bad"
  if ((bad > 0)); then
    note "$(sed -nE 's/^FAIL /  FAILED: /p' "$log" | head -n 20)" 0 0
  fi
}

step "Debian packages"
scripts/install_deps.sh

step "Build, and meanwhile fetch what tests compare with"
# fetch NAME COMMAND...: the command prints what build/fetched/NAME then holds; that is missing where it failed.
fetch() {
  local name=$1
  shift
  if "$@" >build/fetching </dev/null; then
    mv build/fetching "build/fetched/$name"
  fi
}
rm -rf build/fetched
mkdir -p build/fetched
{
  fetch python python3 scripts/packages.py "${compared_packages[@]}"
  fetch model scripts/fetch_model.py
  fetch mkdocs python3 scripts/packages.py mkdocs pymdown-extensions
} &
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
build release
wait
if [ -e build/fetched/python ]; then
  QEVAL_PYTHON=$(<build/fetched/python)
  export QEVAL_PYTHON
else
  note "tests of Python's readers: left out, its packages cannot be installed" 0 0
  unset QEVAL_PYTHON
fi
if [ -e build/fetched/model ]; then
  model_file=$(<build/fetched/model)
  QEVAL_SMOLLM2_GGUF=$(realpath "$model_file")
  export QEVAL_SMOLLM2_GGUF
else
  note "tests of a real model: left out, it cannot be fetched" 0 0
fi

step "Tests"
unset QEVAL_SHARED_DIR
run_ctest release
skipped_in_release=$skipped_tests

step "Goldens"
for kind in $golden_kinds; do
  run_check "goldens, $kind" python3 tests/tools/check_goldens.py build/release/bin/qeval --only "$kind"
done
run_check "goldens, families" python3 tests/tools/check_families.py build/release/bin/qeval

step "Documents"
if [ -e build/fetched/mkdocs ]; then
  run_check "documents as a site" python3 scripts/docs.py build/release/bin/qeval
else
  note "documents as a site: left out, mkdocs cannot be installed" 0 0
fi
if [ -n "${QEVAL_SMOLLM2_GGUF:-}" ]; then
  step "README's examples"
  run_check "README's examples" python3 tests/python/check_readme.py build/release/bin/qeval "$QEVAL_SMOLLM2_GGUF"
fi

if [ -n "${QEVAL_SMOLLM2_GGUF:-}" ] && [ -n "${QEVAL_PYTHON:-}" ]; then
  step "Python package"
  # By the interpreter that has the module built in, with the packages of .venv.
  packages=$("$QEVAL_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  run_check "Python package" env PYTHONPATH="$packages" build/release/bin/qeval_python tests/python/check_python.py "$QEVAL_SMOLLM2_GGUF" build/release/python
fi

step "Tests under the sanitizers"
targets=()
pattern=""
for folder in $sanitized_tests; do
  if compgen -G "tests/$folder/*_test.cc" >/dev/null; then
    targets+=("${folder}_test")
    pattern+="${pattern:+|}$folder"
  fi
done
build asan "${targets[@]}"
run_ctest asan -R "^($pattern)\\."

step "Inputs kept from fuzzing"
inputs=build/fuzz_inputs
rm -rf "$inputs"
mkdir -p "$inputs"
for archive in tests/fuzz/corpus/*.tar.gz; do
  tar -C "$inputs" -xzf "$archive"
done
# What a model's folder holds is read under the sanitizers, the rest as it is released: that needs no second build.
build release fuzz_corpus fuzz_replay_runs
build asan fuzz_replay_models
build/release/bin/fuzz_corpus "$inputs/seeds"
run_check "inputs kept from fuzzing, models" build/asan/bin/fuzz_replay_models "$inputs" "$inputs/seeds"
run_check "inputs kept from fuzzing, runs" build/release/bin/fuzz_replay_runs "$inputs" "$inputs/seeds"

if [ -n "$shared" ]; then
  step "Reference data of $shared"
  if [ -n "$skipped_in_release" ]; then
    QEVAL_SHARED_DIR=$(realpath "$shared")
    export QEVAL_SHARED_DIR
    run_ctest release -R "^($(sed 's/[][().*+?^$]/\\&/g' <<<"$skipped_in_release" | paste -sd '|'))\$"
  fi
  for kind in $golden_kinds; do
    run_check "goldens of $shared, $kind" python3 "$shared/tools/check_goldens.py" build/release/bin/qeval --only "$kind"
  done
  run_check "architectures of $shared" python3 "$shared/tools/check_architectures.py" build/release/bin/qeval
  run_check "quantized files of $shared" python3 "$shared/tools/check_quantized.py" build/release/bin/qeval
  run_check "chat templates of $shared" python3 tests/tools/check_templates.py build/release/bin/qeval "$shared/templates"
  if [ -n "$model_file" ]; then
    run_check "references of $shared" python3 "$shared/tools/check_reference.py" build/release/bin/qeval "$model_file" \
      --tasks "$reference_tasks"
  fi
fi

step "Summary"
printf '%s' "$summary"
echo "$passed passed, $failed failed"
((failed == 0))
