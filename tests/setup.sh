# shellcheck shell=bash
# What tests/run and examples/run share: packages, configuring, building. To be sourced.
#
# All that is said here goes to stderr, so that stdout is the program's own.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc 2>/dev/null || echo 2)

# The course's data, for those tests and examples that read it.
for shared in "${CHAINRULE_SHARED:-}" "$root/../shared"; do
  if [[ -n $shared && -d $shared ]]; then
    CHAINRULE_SHARED=$(cd "$shared" && pwd)
    export CHAINRULE_SHARED
    break
  fi
done

say() { printf '%s\n' "$*" >&2; }

# Runs a command and shows what it says only if it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  ((status == 0)) || cat "$log" >&2
  rm -f "$log"
  return $status
}

# Installs the packages that are missing, each given as PACKAGE, or PACKAGE:COMMAND where the command will do,
# wherever it is from. Without apt or the rights it says what is missing; cmake then names the rest.
need() {
  local item package command missing=() as_root=()
  for item in "$@"; do
    package=${item%%:*} command=${item#"$package"}
    [[ -n $command ]] && command -v "${command#:}" >/dev/null && continue
    # Without dpkg only commands can be looked for.
    if command -v dpkg-query >/dev/null; then
      # One line for each architecture that it is known for.
      dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -x installed >/dev/null ||
        missing+=("$package")
    elif [[ -n $command ]]; then
      missing+=("${command#:}")
    fi
  done
  ((${#missing[@]})) || return 0

  if ! command -v apt-get >/dev/null; then
    say "Missing here, please install: ${missing[*]}"
    return 0
  fi
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      say "Missing here, please install as root: apt-get install ${missing[*]}"
      return 0
    fi
    as_root=(sudo)
  fi
  say "Installing what chainrule is built with and this machine does not have: ${missing[*]}"
  say "(${as_root[*]:+sudo }apt-get install, asked for by $0)"
  quietly "${as_root[@]}" apt-get update -qq || say "apt-get update failed; going on with the lists that are here"
  quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" || say "apt-get install failed; going on with what is here"
}

need_build() {
  need g++:c++ cmake:cmake ninja-build:ninja ccache:ccache libc6-dev libfmt-dev libxsimd-dev libopenblas-dev \
    catch2 libxtensor-dev libxtensor-blas-dev libeigen3-dev nlohmann-json3-dev libcli11-dev libmatio-dev libhdf5-dev libzip-dev \
    libcsv-dev zlib1g-dev libxbyak-dev gnuplot-nox:gnuplot fonts-dejavu-core
}

# What ./tests/run bench compares with.
need_peers() { need libdlib-dev libeigen3-dev libdnnl-dev libtorch-dev python3-numpy; }

# configure PRESET, unless that was done: ninja itself notices changed CMake files, but not a changed preset.
configure() {
  local dir=$root/build/$1
  [[ $dir/build.ninja -nt $root/CMakePresets.json ]] && return
  say "Configuring $dir"
  quietly cmake -S "$root" --preset "$1"
}

# build PRESET [cmake --build argument]...: ninja's one line of progress in a terminal, only what fails elsewhere.
build() {
  local dir=$root/build/$1 quiet=()
  shift
  if [[ ! -t 2 ]]; then
    quiet=(-- --quiet)
    say "Building $dir"
  fi
  cmake --build "$dir" --parallel "$jobs" "$@" "${quiet[@]}" >&2
}
