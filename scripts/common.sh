# shellcheck shell=bash
# Shared by quickstart.sh and test.sh (sourced, bash): start in the checkout's root, build a preset.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

step() {
  echo
  echo "== $*"
}

# build PRESET [TARGET...]: configures and builds, with ccache where it is installed.
build() {
  local preset=$1
  shift
  if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache
  fi
  cmake --preset "$preset" >/dev/null
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
