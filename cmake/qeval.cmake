# Compiler settings shared by every target, and the two helpers that declare one.

find_package(Threads REQUIRED)
find_package(TBB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(PkgConfig REQUIRED)

add_library(qeval_settings INTERFACE)
target_include_directories(qeval_settings INTERFACE ${PROJECT_SOURCE_DIR})
if(PROJECT_IS_TOP_LEVEL)  # a project that links the libraries has warnings of its own
  target_compile_options(qeval_settings INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
  # pip builds with compilers that nobody here has seen, and a cross compiler has false alarms of its own.
  if(NOT SKBUILD AND NOT CMAKE_CROSSCOMPILING)
    target_compile_options(qeval_settings INTERFACE -Werror)
  endif()
endif()
target_compile_options(qeval_settings INTERFACE
  # Fused multiply-adds are written where they are meant: the compiler must not fuse one code path and
  # not another, or a score would depend on the tile a row fell into.
  -ffp-contract=off)
# Kernels are written for two architectures. Each has translation units of its own, by the names of their files;
# qeval_leave_out() takes those of the other from a list of sources.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(qeval_settings INTERFACE -march=x86-64-v2)
  set(QEVAL_FOREIGN_SOURCES "_neon[a-z0-9_]*\\.cc$")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(QEVAL_FOREIGN_SOURCES "_avx[a-z0-9_]*\\.cc$")
else()
  message(FATAL_ERROR "qeval is written for x86-64 and AArch64, not for ${CMAKE_SYSTEM_PROCESSOR}")
endif()
macro(qeval_leave_out list)
  list(FILTER ${list} EXCLUDE REGEX ${QEVAL_FOREIGN_SOURCES})
endmacro()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  # GCC's names are used here and there, and assert(!"why").
  target_compile_options(qeval_settings INTERFACE -Wno-unknown-warning-option -Wno-string-conversion)
endif()
if(QEVAL_SANITIZE)
  target_compile_options(qeval_settings INTERFACE -fsanitize=${QEVAL_SANITIZE} -fno-omit-frame-pointer
                                                  -fno-sanitize-recover=all)
  target_link_options(qeval_settings INTERFACE -fsanitize=${QEVAL_SANITIZE})
endif()
if(QEVAL_FUZZ)  # coverage for the fuzzer, whose main() only the fuzz targets link
  target_compile_options(qeval_settings INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Headers that nearly every file reads take longer to read than the files to compile. Compiler caches, which serve
# developers better, cannot see through them.
option(QEVAL_PRECOMPILE "Read common headers once: for builds from nothing" OFF)
set(QEVAL_COMMON_HEADERS <algorithm> <filesystem> <functional> <map> <memory> <optional> <span> <string> <vector>
                         <fmt/format.h> <fmt/ranges.h> <nlohmann/json.hpp>)

# qeval_library(NAME [DIRS sub...] LINK target...): one static library per folder, made of the *.cc files of
# that folder and of the named sub-folders. What is not linked cannot be used, so a forbidden include across
# folders fails at link time.
function(qeval_library name)
  cmake_parse_arguments(ARG "" "" "DIRS;LINK" ${ARGN})
  set(patterns ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(dir IN LISTS ARG_DIRS)
    list(APPEND patterns ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*.cc)
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  qeval_leave_out(sources)
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC qeval_settings ${ARG_LINK})
    if(QEVAL_PRECOMPILE)
      target_precompile_headers(${name} PRIVATE ${QEVAL_COMMON_HEADERS})
      # Headers read for one instruction set cannot be used for another.
      list(FILTER sources INCLUDE REGEX "_(avx|neon)[a-z0-9_]*\\.cc$")
      set_source_files_properties(${sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
    endif()
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE qeval_settings ${ARG_LINK})
  endif()
endfunction()
