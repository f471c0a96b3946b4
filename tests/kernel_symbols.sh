#!/usr/bin/env bash
# kernel_symbols.sh ARCH OBJECT...: no object exports an inline function that is not tagged with ARCH.
#
# Of an inline function that several objects have, a linker keeps any one. Had an object that was compiled for AVX-512
# std::max<float>, that copy could serve the whole program, and end it on a processor without AVX-512. So the names of
# such functions must have the namespaces of this instruction set in them.
set -euo pipefail

if ! command -v nm >/dev/null; then
  echo "skipped: no nm here"
  exit 77
fi

status=0
arch=$1
shift
(($#)) || { echo "$arch: no objects" && exit 1; }
for object; do
  [[ -r $object ]] || { echo "$arch: $object is missing" && exit 1; }
  file=$(basename "$object")
  # W: a weak function. Weak data (V, u) holds no instructions.
  weak=$(nm -C --defined-only "$object" | sed -n 's/^[0-9a-f]* W //p')
  untagged=$(grep -vE "chainrule::kernels::$arch::|xsimd_$arch::" <<<"$weak" || true)
  if [[ -n $untagged ]]; then
    echo "$arch, $file: inline functions that a linker may choose for every processor:"
    while IFS= read -r symbol; do echo "    $symbol"; done <<<"$untagged"
    status=1
  else
    echo "$arch, $file: $(grep -c . <<<"$weak" || true) inline functions, all tagged"
  fi
done
exit $status
