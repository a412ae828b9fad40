# What is installed: the program, its manual page and completions, which it writes itself from its option tables, and
# the documentation. `cpack -G DEB` in the build folder makes a Debian package of the same.

set(made ${CMAKE_BINARY_DIR}/share)
file(MAKE_DIRECTORY ${made})
add_custom_command(
  OUTPUT ${made}/qeval.1 ${made}/qeval ${made}/_qeval
  COMMAND qeval man > ${made}/qeval.1
  COMMAND qeval completion bash > ${made}/qeval
  COMMAND qeval completion zsh > ${made}/_qeval
  DEPENDS qeval
  COMMENT "Manual page and completions")
add_custom_target(qeval_share ALL DEPENDS ${made}/qeval.1 ${made}/qeval ${made}/_qeval)

install(TARGETS qeval RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${made}/qeval.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${made}/qeval DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${made}/_qeval DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES README.md LICENSE CITATION.cff DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME qeval)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Evaluation suite for quantized language models")
set(CPACK_PACKAGE_CONTACT "The qeval authors")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "Scores language models as they are and quantized, quantizes them by the methods\n that papers compare, and reports what quantization costs.")
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # by dpkg-shlibdeps, of the package dpkg-dev
include(CPack)
