# What is installed, and the Debian packages made of it. There are two components: the command with its pages, and what
# programs are built with.

# Man pages and completion come from the tables that the command parses its options by: it is run for them.
set(documents)
function(evenkeel_document file) # the rest: the command's arguments
    set(out ${PROJECT_BINARY_DIR}/documents/${file})
    cmake_path(GET out PARENT_PATH folder)
    add_custom_command(OUTPUT ${out}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
        COMMAND evenkeel_cli ${ARGN} > ${out}
        DEPENDS evenkeel_cli VERBATIM)
    set(documents ${documents} ${out} PARENT_SCOPE)
endfunction()

find_program(GZIP gzip)
function(evenkeel_man_page name) # the rest: of which command
    evenkeel_document(${name}.1 help --man ${ARGN})
    if(GZIP)
        set(page ${PROJECT_BINARY_DIR}/documents/${name}.1)
        add_custom_command(OUTPUT ${page}.gz COMMAND ${GZIP} -9nkf ${page} DEPENDS ${page} VERBATIM)
        list(APPEND documents ${page}.gz)
        list(REMOVE_ITEM documents ${page})
    endif()
    set(documents ${documents} PARENT_SCOPE)
endfunction()

evenkeel_man_page(evenkeel)
file(GLOB command_sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/cli cli/cmd_*.c)
foreach(source IN LISTS command_sources)
    string(REGEX REPLACE "^cmd_(.*)\\.c$" "\\1" name ${source})
    evenkeel_man_page(evenkeel-${name} ${name})
endforeach()
install(FILES ${documents} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT command)

evenkeel_document(evenkeel.bash completion bash)
evenkeel_document(evenkeel.fish completion fish)
evenkeel_document(_evenkeel completion zsh)
add_custom_target(evenkeel_documents ALL DEPENDS ${documents})
set(folder ${PROJECT_BINARY_DIR}/documents)
install(FILES ${folder}/evenkeel.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME evenkeel
        COMPONENT command)
install(FILES ${folder}/evenkeel.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT command)
# zsh looks into site-functions below /usr/local, and on Debian into a place of its own below /usr.
install(CODE "
    set(zsh site-functions)
    if(CMAKE_INSTALL_PREFIX MATCHES \"/usr$\" AND EXISTS /etc/debian_version)
        set(zsh vendor-completions)
    endif()
    file(INSTALL DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/zsh/\${zsh}\" TYPE FILE
         FILES \"${folder}/_evenkeel\")" COMPONENT command)

# find_package(evenkeel) and pkg-config. The library is static: who links it links what it stands on.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/evenkeel)
install(TARGETS evenkeel EXPORT evenkeel ARCHIVE COMPONENT development)
install(TARGETS evenkeel_cli RUNTIME COMPONENT command)
# Which MPI library a cluster has is its own affair, so that there is no package of these.
if(TARGET evenkeel_mpi_cli)
    install(TARGETS evenkeel_mpi_cli evenkeel_mpi RUNTIME COMPONENT mpi ARCHIVE COMPONENT mpi)
    install(FILES include/evenkeel-mpi.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT mpi)
endif()
install(FILES include/evenkeel.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT evenkeel NAMESPACE evenkeel:: DESTINATION ${package_dir} FILE evenkeel-targets.cmake COMPONENT development)
configure_package_config_file(cmake/evenkeel-config.cmake.in evenkeel-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(evenkeel-config-version.cmake COMPATIBILITY SameMinorVersion)
set(pc_requires "jansson zlib")
set(development_depends "libjansson-dev, zlib1g-dev")
if(PNG_FOUND)
    string(APPEND pc_requires " libpng")
    string(APPEND development_depends ", libpng-dev")
endif()
if(JPEG_FOUND)
    string(APPEND pc_requires " libjpeg")
    string(APPEND development_depends ", libjpeg-dev")
endif()
file(RELATIVE_PATH pc_up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/evenkeel.pc.in evenkeel.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/evenkeel-config.cmake ${PROJECT_BINARY_DIR}/evenkeel-config-version.cmake
        DESTINATION ${package_dir} COMPONENT development)
install(FILES ${PROJECT_BINARY_DIR}/evenkeel.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

# The licence and the pages.
set(doc_dir ${CMAKE_INSTALL_DATADIR}/doc)
file(GLOB pages CONFIGURE_DEPENDS docs/*)
install(FILES README.md ${pages} DESTINATION ${doc_dir}/evenkeel COMPONENT command)
install(FILES LICENSE DESTINATION ${doc_dir}/evenkeel RENAME copyright COMPONENT command)
install(FILES LICENSE DESTINATION ${doc_dir}/libevenkeel-dev RENAME copyright COMPONENT development)

# cpack -G DEB: evenkeel, and libevenkeel-dev (docs/design.md says why two).
set(maintainer "The Evenkeel authors <evenkeel@localhost>")
if(DEFINED ENV{DEBEMAIL}) # as Debian's own tools have it
    set(maintainer "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
endif()
set(EVENKEEL_MAINTAINER "${maintainer}" CACHE STRING "Maintainer of the Debian packages")
string(TIMESTAMP changelog_date "%a, %d %b %Y %H:%M:%S +0000" UTC)
configure_file(cmake/changelog.in documents/changelog @ONLY)
if(GZIP)
    execute_process(COMMAND ${GZIP} -9nkf ${folder}/changelog)
    foreach(package evenkeel:command libevenkeel-dev:development)
        string(REPLACE ":" ";" package ${package})
        list(POP_FRONT package name)
        install(FILES ${folder}/changelog.gz DESTINATION ${doc_dir}/${name} COMPONENT ${package})
    endforeach()
endif()
set(CPACK_PACKAGE_VENDOR "Evenkeel")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "neural networks with batch normalization")
set(CPACK_PACKAGE_CONTACT "${EVENKEEL_MAINTAINER}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL command development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMMAND_PACKAGE_NAME evenkeel)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SECTION science)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COMMAND_DESCRIPTION "A command that trains networks, shows what their normalizations do, audits
and mends models, and turns them into other kinds of files. Models are
safetensors files, which PyTorch reads too.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libevenkeel-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${development_depends}")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "The static library, its header, and what CMake and pkg-config find it by.
Programs that use it train and run networks as the command does.")
include(CPack)
