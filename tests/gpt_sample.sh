#!/usr/bin/env bash
# gpt_sample.sh EXAMPLES TEXT NAME: what gpt has learned of a text and saved, gpt_sample loads: from one prompt and seed
# both write the same, which is the end of what gpt prints.
set -euo pipefail
examples=$1
text=$2
name=$3

sample=(--prompt "The graph" --seed)
printed=$("$examples/gpt" --quick --text "$text" --vocabulary 300 --save "$name" "${sample[@]}" 3)
written=$("$examples/gpt_sample" "$name" --count 100 "${sample[@]}" 3)
other=$("$examples/gpt_sample" "$name" --count 100 "${sample[@]}" 4)
[[ $written == "The graph"* ]] || { echo "gpt_sample does not begin with the prompt: $written" && exit 1; }
[[ $printed == *$'\n'"$written" ]] || { echo "gpt wrote: $printed"$'\n'"gpt_sample wrote: $written" && exit 1; }
[[ $written != "$other" ]] || { echo "another seed wrote the same" && exit 1; }
echo "both wrote: $written"
