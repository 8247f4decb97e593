# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# The few packages that Ansible itself needs.

apt_install() { # PACKAGE...
  export DEBIAN_FRONTEND=noninteractive
  local options=(-qq -o DPkg::Lock::Timeout=120 --yes --no-install-recommends)
  if ! as_root apt-get "${options[@]}" install "$@" >/dev/null 2>&1; then
    as_root apt-get -qq update || fail "$E_STEP" "apt-get update failed" "repair /etc/apt/sources.list or the network, then ./bootstrap.sh again"
    as_root apt-get "${options[@]}" install "$@" >/dev/null || fail "$E_STEP" "apt-get could not install $*" "apt-get install $*"
  fi
}

python_can_make_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Ansible's apt module works through the distribution's bindings, in check mode too.
python_knows_apt() { /usr/bin/python3 -c 'import apt' 2>/dev/null; }

missing_packages() {
  python_can_make_venvs /usr/bin/python3 || echo python3-venv
  python_knows_apt || echo python3-apt
}

install_python() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  step "Install ${missing[*]}"
  apt_install python3 "${missing[@]}"
}
