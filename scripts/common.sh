# shellcheck shell=bash
# Shared by quickstart.sh and test.sh (sourced, bash): start in the checkout's root, build a preset.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

step() {
  echo
  echo "== $*"
}

first_build=()  # what a folder is configured with that does not exist yet

# build PRESET [TARGET...]: configures and builds, with ccache where it is installed.
build() {
  local preset=$1
  shift
  if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache
  fi
  local targets=() options=()
  [ -e "build/$preset/CMakeCache.txt" ] || options=("${first_build[@]}")
  cmake --preset "$preset" "${options[@]}" >/dev/null
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
