# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# The controller: ansible-core and its collections in .venv, from the lock with hashes.

readonly controller_lock="$here/ansible/requirements.txt"
readonly -a pip_strict=(--quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all:)

venv_key() { # PYTHON LOCK...: what decides whether an environment is the wanted one
  local python="$1"
  shift
  printf '%s %s' "$("$python" -c 'import sys; print(sys.version.split()[0])')" "$(cat "$@" | sha256sum | cut -d' ' -f1)"
}

venv_is_current() { # VENV KEY
  [[ -f $1/rockiln-key && "$(<"$1/rockiln-key")" == "$2" ]]
}

make_controller_venv() { # VENV
  local venv="$1" key
  key="$(venv_key /usr/bin/python3 "$controller_lock")"
  if ! venv_is_current "$venv" "$key"; then
    step "Install Ansible into $venv"
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install "${pip_strict[@]}" --no-compile --requirement "$controller_lock" ||
      fail "$E_STEP" "pip could not install ansible/requirements.txt" "check the network or pip's settings (pip config list), then ./bootstrap.sh again"
    # The collections are 15,000 modules that are sent as they are: compiling them is most of what pip would do.
    "$venv/bin/python" -m compileall -q -x '/ansible_collections/' "$venv/lib"
    printf '%s' "$key" >"$venv/rockiln-key"
  fi
  log_file="$venv/bootstrap.log"
}
