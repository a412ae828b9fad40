# Writes OUT, a header with the commit that SOURCE is at; only where that changed, so that nothing is built again
# otherwise. Empty outside a git checkout, as in a release's archive.
execute_process(COMMAND git -C ${SOURCE} rev-parse --show-toplevel OUTPUT_VARIABLE top ERROR_QUIET
                OUTPUT_STRIP_TRAILING_WHITESPACE)
set(commit "")
file(REAL_PATH ${SOURCE} source)
if(top STREQUAL source)
  execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --exclude=* --dirty=-changed
                  OUTPUT_VARIABLE commit ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#pragma once\n#define QEVAL_COMMIT \"${commit}\"\n")
