#!/usr/bin/env bash
# rooms.sh ROOT: the folders that README.md's map names are those that there are, and in its order each includes only
# itself and those above it on the map: what it stands on.
set -euo pipefail
root=$1
cd "$root"

# A line of the map begins with its folder: "framework/core/   errors, ...".
mapfile -t rooms < <(sed -nE 's!^(framework/[a-z]+|ops|optim)/  .*!\1!p' README.md)
status=0
complain() {
  echo "$1"
  status=1
}

declare -A floor
for i in "${!rooms[@]}"; do
  floor[${rooms[i]}]=$i
  [[ -d ${rooms[i]} ]] || complain "README.md's map has ${rooms[i]}/, which is not there"
done
for folder in framework/*/ ops/ optim/; do
  folder=${folder%/}
  # CMake's files, and no code.
  [[ -v floor[$folder] || $folder == framework/cmake ]] || complain "README.md's map lacks $folder/"
done

# A file's room; empty for that of none. A room may have folders of its own.
room() {
  [[ ! $1 =~ ^(framework/[^/]+|ops|optim)/ ]] || echo "${BASH_REMATCH[1]}"
}

while IFS=: read -r file include; do
  from=$(room "$file")
  to=$(room "${include#*<chainrule/}")
  # The header of all headers stands in no room, and none includes it.
  [[ -z $to ]] && complain "$file includes <chainrule/chainrule.hpp>" && continue
  [[ ${floor[$from]:--1} -ge ${floor[$to]:-99} ]] || complain "$file includes ${include#*<chainrule/}, of a room above it"
done < <(grep -rHo '#include <chainrule/[^>]*' --include='*.[ch]pp' framework/*/ ops optim)

((status)) || echo "${#rooms[@]} rooms, none includes one above it"
exit "$status"
