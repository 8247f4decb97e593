#!/usr/bin/env bash
# From a fresh Debian or Ubuntu host to a running service and a first picture. See --help.
set -Eeuo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly here
cd "$here"
# shellcheck source=ansible/bootstrap/say.sh
source ansible/bootstrap/say.sh
# shellcheck source=ansible/bootstrap/checks.sh
source ansible/bootstrap/checks.sh
# shellcheck source=ansible/bootstrap/packages.sh
source ansible/bootstrap/packages.sh
# shellcheck source=ansible/bootstrap/venv.sh
source ansible/bootstrap/venv.sh
# shellcheck source=ansible/bootstrap/bundle.sh
source ansible/bootstrap/bundle.sh
# shellcheck source=ansible/bootstrap/process.sh
source ansible/bootstrap/process.sh
# shellcheck source=ansible/bootstrap/site.sh
source ansible/bootstrap/site.sh

usage() {
  cat <<'END'
Usage: ./bootstrap.sh [OPTIONS] [-- ARGUMENTS OF ansible-playbook]

Takes this host to a running picture service on 127.0.0.1:8000 and makes a first picture. A second run changes nothing.

  --check               say what would be done; changes nothing
  --backend NAME        auto (default): the newest release that fits an AMD GPU, the CPU where there is none. rocm: that, or
                        fail. cpu: leave a GPU alone
  --runtime NAME        docker: containers, needs root or sudo. process: plain processes in the foreground, without root.
                        auto (default): docker, or process after saying why
  --listen ADDRESS      where the service is published, from now on; else where inventories/local says, 127.0.0.1:8000 at
                        first. Off loopback every call needs a key: the first one is written to /etc/rockiln/first-key
  --inventory PATH      other hosts than this one, see inventories/example
  --release NAME        a release of the catalogue, or auto; else what the inventory says
  --make-bundle DIR     write what an install without a network needs: wheels, packages, images, checksums. Run it on a
                        host of the same OS, from the same checkout
  --offline DIR         verify such a bundle, then install from it alone
  --yes                 ask nothing (sudo must not need a password then)
  --help                this text

Exit codes: 0 done · 1 a step failed · 2 wrong usage · 3 host or release not supported · 4 no rights · 5 address in use
            6 not enough disk · 7 bundle damaged or not for this host · 8 started, and not ready or no picture
END
}

check_only=no backend=auto runtime=auto listen='' inventory=inventories/local release=''
make_bundle='' offline='' assume_yes=no
playbook_arguments=()

value_of() { # OPTION VALUE: the value, or wrong usage
  [[ $# -ge 2 && -n $2 && $2 != --* ]] || die "$E_USAGE" "Read the options" "$1 needs a value" "./bootstrap.sh --help"
  printf '%s' "$2"
}

while (($#)); do
  case "$1" in
    --check) check_only=yes ;;
    --backend) backend="$(value_of "$@")" || exit; shift ;;
    --runtime) runtime="$(value_of "$@")" || exit; shift ;;
    --listen) listen="$(value_of "$@")" || exit; shift ;;
    --inventory) inventory="$(value_of "$@")" || exit; shift ;;
    --release) release="$(value_of "$@")" || exit; shift ;;
    --make-bundle) make_bundle="$(value_of "$@")" || exit; shift ;;
    --offline) offline="$(value_of "$@")" || exit; shift ;;
    --yes) assume_yes=yes ;;
    --help | -h) usage && exit 0 ;;
    --) shift && playbook_arguments=("$@") && break ;;
    *) die "$E_USAGE" "Read the options" "unknown option $1" "./bootstrap.sh --help" ;;
  esac
  shift
done

step "Check the options"
check_options
step "Check the host"
check_host
[[ -z $offline ]] || check_bundle "$offline"
choose_runtime

if [[ $runtime == process ]]; then
  [[ $check_only == no ]] || finish_check_of_process
  install_process
  run_process
fi

check_rights
check_address
check_space
if [[ $check_only == yes ]]; then
  predict_site
  exit 0
fi
[[ -z $offline ]] || use_bundle "$offline"
install_python
make_controller_venv "$here/.venv"
if [[ -n $make_bundle ]]; then
  write_bundle "$make_bundle"
  exit 0
fi
run_site
first_picture
