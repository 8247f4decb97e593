#!/usr/bin/env bash
# SOURCE → TARGET: what a clone of this working tree would hold, and what git does not know yet but does not ignore.
set -euo pipefail
source="$1" target="$2"
rm -rf "$target"
mkdir -p "$target"
cd "$source"
git -c safe.directory="$source" ls-files --cached --others --exclude-standard -z |
  while IFS= read -r -d '' path; do
    if [[ -e $path || -L $path ]]; then printf '%s\0' "$path"; fi
  done |
  tar --create --null --files-from=- --owner=0 --group=0 | tar --extract --directory="$target"
