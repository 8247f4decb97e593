# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# How bootstrap.sh speaks, and how it fails: the step, the cause, the next command.

readonly E_STEP=1 E_USAGE=2 E_HOST=3 E_RIGHTS=4 E_ADDRESS=5 E_DISK=6 E_BUNDLE=7 E_NOT_READY=8

current_step="Start"
log_file=''

# Temporary folders; they go whichever way the script ends.
leftovers=()
trap '((${#leftovers[@]} == 0)) || rm -rf "${leftovers[@]}"' EXIT

temporary_folder() { # NAME OF THE VARIABLE that gets its path
  printf -v "$1" '%s' "$(mktemp -d)"
  leftovers+=("${!1}")
}

say() { printf '%s\n' "$*"; }

step() {
  current_step="$1"
  printf '\n== %s\n' "$1"
}

die() { # CODE STEP CAUSE NEXT
  printf '\nbootstrap.sh failed.\n  step:  %s\n  cause: %s\n  next:  %s\n' "$2" "$3" "$4" >&2
  [[ -z $log_file ]] || printf '  log:   %s\n' "$log_file" >&2
  trap - ERR
  exit "$1"
}

fail() { # CODE CAUSE NEXT, in the current step
  die "$1" "$current_step" "$2" "$3"
}

# A command that nobody looked at failed: still say where.
trap 'fail "$E_STEP" "the command \"$BASH_COMMAND\" ended with $?" "read the lines above, repair that and run ./bootstrap.sh again"' ERR
