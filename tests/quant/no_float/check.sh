#!/bin/sh
# usage: check.sh OBJECT...
# Fails where the objects hold a floating-point instruction, or call a function outside themselves that is not
# known to be free of them. A whitelist on both counts: an instruction or a function that nobody thought of fails.
# OBJDUMP and NM name the tools for another architecture's objects.
set -eu
export LC_ALL=C

# On x86-64 instructions on xmm and wider registers whose names end like floating-point ones, but which only move bits. On
# AArch64 those of floating point have an f in front, but for conversions and bfloat16.
"${OBJDUMP:-objdump}" -d --no-show-raw-insn "$@" | awk -F '\t' '
  / file format / { arm = /aarch64/; object = $1; sub(/ *file format.*/, "", object) }
  NF >= 2 {
    split($2, words, " ")
    i = 1
    while (words[i] ~ /^(lock|rep|repz|repnz|bnd|notrack|data16|cs|ds|es|fs|gs|ss|addr32|rex.*|\{.*\})$/) ++i
    name = words[i]
    if (name == "") next
    ++seen
    bad = 0
    if (arm) {
      if ((name ~ /^f/ && name != "fmov") || name ~ /^([su]cvtf|bf(dot|mmla|mlal|cvt))/ || name ~ /undefined|\.inst/) bad = 1
      if (bad) { sub(/:$/, "", object); print "floating point: " object $0; ++found }
      next
    }
    if (name ~ /cvt|\(bad\)/) bad = 1
    base = name
    sub(/^v/, "", base)
    # x87, 3DNow and fused multiply-adds.
    if (base ~ /^f/ || base ~ /^pf[a-z0-9]/ || base ~ /^pi2f/) bad = 1
    # Packed integer instructions begin with p, tiles of bytes are tdpb…d; every other name that ends like these computes in floating
    # point unless it is listed.
    if (base !~ /^(p|tdpb[su][su]d$)/ && base ~ /(ps|pd|ss|sd|ph|sh|bf16)[xyz]?$/ &&
        base !~ /^(mov(a|u|h|l|nt|msk|hl|lh)?|and|andn|or|xor|shuf|unpckl|unpckh|blend|blendv|broadcast|insert|extract|maskmov)(ps|pd|ss|sd)$/)
      bad = 1
    if (bad) { sub(/:$/, "", object); print "floating point: " object $0; ++found }
  }
  END {
    if (seen < 20) { print "only " seen " instructions: nothing was disassembled"; exit 1 }
    exit found > 0
  }'

defined=$("${NM:-nm}" --defined-only "$@" | awk 'NF == 3 { print $3 }' | sort -u)
foreign=$("${NM:-nm}" --undefined-only "$@" | awk '$1 == "U" { print $2 }' | sort -u | while read -r symbol; do
  printf '%s\n' "$defined" | grep -Fxq -- "$symbol" || printf '%s\n' "$symbol"
done | c++filt |
  grep -Ev '^(mem(cpy|set|move|cmp)|bcmp|abort|_GLOBAL_OFFSET_TABLE_|_Unwind_Resume)$' |
  grep -Ev '^__(cxa_[a-z_]+|gxx_personality_v0|dso_handle|assert_fail|stack_chk_fail|tls_get_addr)$' |
  grep -Ev '^__aarch64_(cas|swp|ld(add|clr|eor|set))[0-9]+_[a-z_]+$' |
  grep -Ev '^(operator (new|delete)|std::__throw_|std::terminate|tbb::|vtable for|typeinfo for|VTT for)' |
  grep -Ev '^qeval::(quant::integer_cpu\(\)$|detail::run_(ranges|tasks)\()' || true)  # loops call back into the objects
if [ -n "$foreign" ]; then
  echo "calls that this check cannot follow:"
  echo "$foreign"
  exit 1
fi
