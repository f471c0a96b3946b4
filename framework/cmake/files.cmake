# Makes the targets of the libraries that chainrule::files reads and writes files with: chainrule::hdf5, zip, csv and
# zlib. chainrule_files_missing becomes the list of those that were not found, each as name:Debian package. Used by
# the build and, for a static library, by the installed chainrule-config.cmake.
#
# By header and library, not by the CMake packages that some of them bring: libzip's and HDF5's look for command line
# tools as well, libcsv has none.
set(chainrule_files_missing "")
function(chainrule_find_library name package header)
  cmake_parse_arguments(find "" "" "LIBRARIES;INCLUDE_SUFFIXES;LIBRARY_SUFFIXES" ${ARGN})
  string(TOUPPER ${name} variable)
  find_path(CHAINRULE_${variable}_INCLUDE ${header} PATH_SUFFIXES ${find_INCLUDE_SUFFIXES})
  find_library(CHAINRULE_${variable}_LIBRARY NAMES ${find_LIBRARIES} PATH_SUFFIXES ${find_LIBRARY_SUFFIXES})
  mark_as_advanced(CHAINRULE_${variable}_INCLUDE CHAINRULE_${variable}_LIBRARY)
  if(NOT CHAINRULE_${variable}_INCLUDE OR NOT CHAINRULE_${variable}_LIBRARY)
    set(chainrule_files_missing ${chainrule_files_missing} "${name}:${package}" PARENT_SCOPE)
  elseif(NOT TARGET chainrule::${name})
    add_library(chainrule::${name} UNKNOWN IMPORTED)
    set_target_properties(
      chainrule::${name} PROPERTIES IMPORTED_LOCATION "${CHAINRULE_${variable}_LIBRARY}"
                                    INTERFACE_INCLUDE_DIRECTORIES "${CHAINRULE_${variable}_INCLUDE}")
  endif()
endfunction()

chainrule_find_library(hdf5 libhdf5-dev hdf5.h LIBRARIES hdf5_serial hdf5 INCLUDE_SUFFIXES hdf5/serial
                       LIBRARY_SUFFIXES hdf5/serial)
chainrule_find_library(zip libzip-dev zip.h LIBRARIES zip)
chainrule_find_library(csv libcsv-dev csv.h LIBRARIES csv)
chainrule_find_library(zlib zlib1g-dev zlib.h LIBRARIES z)
