#!/bin/sh
# Installs the Debian packages that qeval is built from and tested with (made for Debian 12), or those named instead.
# Does nothing, and needs no rights, where they are all there.
#
# usage: scripts/install_deps.sh [PACKAGE...]
set -eu

packages="
  g++ cmake ninja-build ccache pkg-config git
  ca-certificates python3 python3-venv python3-dev
  libtbb-dev libsentencepiece-dev nlohmann-json3-dev libboost-program-options-dev libpcre2-dev
  libutf8proc-dev libssl-dev libfmt-dev libeigen3-dev libonnx-dev libprotobuf-dev protobuf-compiler libcpp-httplib-dev
  libgtest-dev libgmock-dev libbenchmark-dev dpkg-dev file
  libopenmpi-dev openmpi-bin
"
packages=${*:-$packages}

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
  # shellcheck disable=SC2086  # joins the lines
  echo "install_deps.sh: this is no Debian system; install the equivalents of:" $packages >&2
  exit 1
fi

missing=""
for package in $packages; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
  echo "Debian packages: all installed"
  exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
  as_root=""
elif command -v sudo >/dev/null 2>&1; then
  as_root="sudo"
else
  echo "install_deps.sh: neither root nor sudo here; ask an administrator for: apt-get install$missing" >&2
  exit 1
fi

echo "Debian packages: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
  # shellcheck disable=SC2086  # as_root is empty or one word
  if ! $as_root env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "install_deps.sh: '$*' failed, see above" >&2
    exit 1
  fi
}
run apt-get update -q
# shellcheck disable=SC2086  # a list of names
run apt-get install -y -q --no-install-recommends $missing
