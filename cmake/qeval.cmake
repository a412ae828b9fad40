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

# Headers take longer to read than most files to compile: several files of a folder become one translation unit, and
# read them once. A change then compiles all of them again, so this is for builds from nothing.
option(QEVAL_UNITY "Compile several files as one: for builds from nothing" OFF)
if(QEVAL_UNITY)
  set(CMAKE_UNITY_BUILD ON)
  if(NOT DEFINED CMAKE_UNITY_BUILD_BATCH_SIZE)
    set(CMAKE_UNITY_BUILD_BATCH_SIZE 16)
  endif()
  # A variable may have the name of a constant in a file beside it; and what stands in an included file looks to GCC as
  # if a header had an unnamed namespace.
  target_compile_options(qeval_settings INTERFACE -Wno-shadow -Wno-subobject-linkage)
  # What GCC 12 warns of once it has inlined, often without cause, depends on what it can inline.
  target_compile_options(qeval_settings INTERFACE -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-stringop-overread
                                                  -Wno-array-bounds -Wno-restrict)
endif()
# CMake leaves out what has compiler options of its own. The other kernels share their names with those.
macro(qeval_compile_alone list)
  foreach(source IN LISTS ${list})
    if(source MATCHES "_(portable|smooth)\\.cc$")
      set_source_files_properties(${source} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
  endforeach()
endmacro()

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
    qeval_compile_alone(sources)
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE qeval_settings ${ARG_LINK})
  endif()
endfunction()
