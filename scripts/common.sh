# shellcheck shell=bash
# Shared by quickstart.sh and test.sh (sourced, bash): start in the checkout's root, build a preset.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

step() {
  echo
  echo "== $*"
}

# build PRESET [TARGET...]: configures and builds; where no compiler cache was asked for (CMAKE_CXX_COMPILER_LAUNCHER),
# with the common headers read once, which is the faster of the two for a first build.
build() {
  local preset=$1 precompile=ON
  shift
  if [ -n "${CMAKE_CXX_COMPILER_LAUNCHER:-}" ]; then
    precompile=OFF
  fi
  cmake --preset "$preset" -DQEVAL_PRECOMPILE="$precompile" >/dev/null
  local targets=()
  if (($# > 0)); then
    targets=(--target "$@")
  fi
  # Ninja's line per file is for terminals that overwrite it; without one, only warnings and errors are of interest.
  if [ -t 1 ]; then
    cmake --build --preset "$preset" "${targets[@]}"
  else
    cmake --build --preset "$preset" "${targets[@]}" -- --quiet
  fi
}
