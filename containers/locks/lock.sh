#!/usr/bin/env bash
# Writes the locks with hashes anew. Run it after a change of service/pyproject.toml, a *.in file or to move versions.
#   containers/locks/lock.sh            keep what is locked, add what is missing
#   containers/locks/lock.sh --upgrade  move everything to the newest allowed version
#   containers/locks/lock.sh --check    fail when a lock does not match its inputs; writes nothing
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
uv="${UV:-uv}"
command -v "$uv" >/dev/null || { echo "lock.sh: uv is not installed; next: pip install uv, or set UV=/path/to/uv" >&2; exit 1; }

upgrade=()
check=no
case "${1:-}" in
  "") ;;
  --upgrade) upgrade=(--upgrade) ;;
  --check) check=yes ;;
  *) echo "lock.sh: unknown option $1" >&2; exit 2 ;;
esac

stale=0
# lock OUTPUT PYTHON ARGS...: one lock file for linux, for every Python from PYTHON on.
lock() {
  local output="$1" python="$2" target="$1"
  shift 2
  if [[ $check == yes ]]; then
    target="$(mktemp)"
    cp "$output" "$target"
  fi
  "$uv" pip compile --quiet --no-config --universal --python-version "$python" --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate \
    --custom-compile-command containers/locks/lock.sh "${upgrade[@]}" --output-file "$target" "$@"
  if [[ $check == yes ]]; then
    if ! diff --unified=0 "$output" "$target"; then
      echo "lock.sh: $output is out of date; next: containers/locks/lock.sh" >&2
      stale=1
    fi
    rm -f "$target"
  fi
}

lock ansible/requirements.txt 3.10 ansible/requirements.in
lock containers/locks/api.txt 3.11 service/pyproject.toml
lock containers/locks/worker.txt 3.11 service/pyproject.toml --extra worker \
  containers/locks/torch-runtime.in --overrides containers/locks/overrides.txt
lock containers/locks/build.txt 3.11 containers/locks/build.in
lock tests/requirements.txt 3.11 tests/requirements.in service/pyproject.toml --extra worker \
  containers/locks/torch-runtime.in ansible/requirements.in --overrides containers/locks/overrides.txt \
  --constraints containers/locks/worker.txt --constraints ansible/requirements.txt
exit "$stale"
