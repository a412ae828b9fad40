#!/usr/bin/env bash
# Debian's development packages of another architecture, unpacked into .cache/sysroot-ARCH, whose path is printed: what
# the cross compiler links with (cmake/aarch64.cmake). apt works in folders of its own below .cache, so that neither the
# packages nor the settings of this machine change, and no rights are needed.
#
# usage: scripts/sysroot.sh ARCH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

arch=${1:?usage: scripts/sysroot.sh ARCH, say arm64}
root=$PWD/.cache/sysroot-$arch
# install_deps.sh's libraries, those for tests included, but for MPI and the benchmarks.
packages=(libc6-dev libstdc++-12-dev libtbb-dev libsentencepiece-dev nlohmann-json3-dev libboost-program-options-dev
  libpcre2-dev libutf8proc-dev libssl-dev libfmt-dev libeigen3-dev libonnx-dev libprotobuf-dev libcpp-httplib-dev
  libgtest-dev libgmock-dev)

if [ -e "$root/complete" ] && [ "$(cat "$root/complete")" = "${packages[*]}" ]; then
  echo "$root"
  exit 0
fi
rm -rf "$root"
state=$root/apt
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
apt() {
  if ! apt-get -q -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o Dir::State="$state" \
    -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" -o APT::Sandbox::User="$(id -un)" \
    "$@" >"$root/apt.log" 2>&1 </dev/null; then
    tail -n 20 "$root/apt.log" >&2
    echo "sysroot.sh: 'apt-get $1' failed for $arch, see above" >&2
    exit 1
  fi
}
apt update
apt install -y --no-install-recommends --download-only "${packages[@]}"
for package in "$state"/cache/archives/*.deb; do
  dpkg-deb --extract "$package" "$root"
done
rm -rf "$state"
# Links to /lib/… lead out of the folder.
find "$root" -type l -lname '/*' | while read -r link; do
  ln -sfn "$(realpath --no-symlinks --relative-to="$(dirname "$link")" "$root$(readlink "$link")")" "$link"
done
echo "${packages[*]}" >"$root/complete"
echo "$root"
