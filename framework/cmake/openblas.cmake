# Makes the target chainrule::openblas, and none where OpenBLAS is not found. Used by the build and, for a static
# library, by the installed chainrule-config.cmake.
#
# Not find_package(OpenBLAS) or find_package(BLAS): the first exists in some builds of OpenBLAS only, the second may
# find another BLAS, and the library needs OpenBLAS' own cblas.h (openblas_set_num_threads).
if(NOT TARGET chainrule::openblas)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(CHAINRULE_PC_OPENBLAS QUIET openblas)
  endif()
  # The folders of Debian's flavours, Fedora's, and Homebrew's, which links neither into the standard places.
  set(chainrule_openblas_places
      PATH_SUFFIXES openblas openblas-pthread openblas-openmp openblas-serial opt/openblas/include opt/openblas/lib)
  find_path(CHAINRULE_OPENBLAS_INCLUDE cblas.h HINTS ${CHAINRULE_PC_OPENBLAS_INCLUDE_DIRS} ${chainrule_openblas_places})
  find_library(CHAINRULE_OPENBLAS_LIBRARY openblas HINTS ${CHAINRULE_PC_OPENBLAS_LIBRARY_DIRS}
               ${chainrule_openblas_places})
  mark_as_advanced(CHAINRULE_OPENBLAS_INCLUDE CHAINRULE_OPENBLAS_LIBRARY)
  if(CHAINRULE_OPENBLAS_INCLUDE AND CHAINRULE_OPENBLAS_LIBRARY)
    add_library(chainrule::openblas UNKNOWN IMPORTED)
    set_target_properties(
      chainrule::openblas PROPERTIES IMPORTED_LOCATION "${CHAINRULE_OPENBLAS_LIBRARY}"
                                     INTERFACE_INCLUDE_DIRECTORIES "${CHAINRULE_OPENBLAS_INCLUDE}")
  endif()
  unset(chainrule_openblas_places)
endif()
