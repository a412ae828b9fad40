#!/bin/sh
# usage: check_paths.sh OBJECT...
# Fails where an object of one CPU path (*_avx*, *_neon*) defines a function that is not its own alone: an inline
# function or a template of a header. The linker keeps one copy for the whole program, perhaps this one, which other
# CPUs cannot run.
set -eu
export LC_ALL=C
seen=0
bad=""
for object in "$@"; do
  case ${object##*/} in
    *_avx* | *_neon*) ;;
    *) continue ;;
  esac
  seen=$((seen + 1))
  symbols=$("${NM:-nm}" -C --defined-only "$object")
  if [ -z "$symbols" ]; then
    echo "$object: no symbol"
    exit 1
  fi
  bad="$bad$(printf '%s\n' "$symbols" | awk -v object="${object##*/}" '
    $2 ~ /^[WVu]$/ { sub(/^[0-9a-f]* [WVu] /, ""); printf "%s: %s\\n", object, $0 }')"
done
if [ "$seen" -eq 0 ]; then
  echo "no object of a CPU path"
  exit 1
fi
if [ -n "$bad" ]; then
  echo "defined for one CPU path, but the whole program may use it:"
  printf '%b' "$bad"
  exit 1
fi
