# cmake -DROOT=folder -DOUTPUT=file.cc -DFUNCTION=name -P embed.cmake: writes a source file that holds every file below
# ROOT, which the function returns, so that what is shipped needs no data directory at run time.
file(GLOB_RECURSE paths RELATIVE ${ROOT} ${ROOT}/*.jsonl ${ROOT}/*.txt)
list(SORT paths)
set(entries "")
foreach(path IN LISTS paths)
  file(READ ${ROOT}/${path} hex HEX)
  # A text of bytes: nothing in the file can end the literal, and the file may be of any size.
  string(REGEX REPLACE "(................................................................)" "\\1\"\n     \"" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" bytes "${hex}")
  string(APPEND entries "    {\"${path}\",\n     \"${bytes}\"sv},\n")
endforeach()
file(WRITE ${OUTPUT} "// Written by datasets/embed.cmake.
#include \"datasets/sample_files.h\"

#include <array>

namespace qeval::datasets {
namespace {

using namespace std::string_view_literals;

constexpr auto embedded_${FUNCTION} = std::to_array<SampleFile>({
${entries}});

}  // namespace

std::span<const SampleFile> ${FUNCTION}() { return embedded_${FUNCTION}; }

}  // namespace qeval::datasets
")
