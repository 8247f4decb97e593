# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# Everything that is asked of a host before anything outside .venv is changed.
# Version numbers stand in the release catalogue alone; they are read from it here.

readonly catalogue="$here/ansible/roles/rocm_catalogue/vars/main/releases.yml"
readonly engine_free_mib=6144 data_free_mib=2048
readonly amd_vendor=0x1002
readonly cap_net_admin=12 cap_sys_admin=21

catalogue_cpu() { sed -n '/^  cpu:$/,$p' "$catalogue"; } # the row of hosts without a GPU; it stands last

catalogue_os() { # "debian 12", one a line, of the cpu row
  catalogue_cpu | sed -n 's/^ *- {name: \([a-z]*\), version: "\([0-9.]*\)", proof: [a-z]*}$/\1 \2/p'
}

catalogue_releases() { sed -n 's/^  \([a-z0-9.]*\):$/\1/p' "$catalogue"; }

catalogue_value() { # KEY, of the cpu row: the first line "KEY: VALUE" of any depth
  catalogue_cpu | sed -n "s/^ *$1: \"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" | head -n 1
}

readonly site_settings="$here/inventories/local/group_vars/rockiln.yml"

check_options() {
  wished_listen="$listen"
  [[ -n $listen ]] || listen="$(sed -n 's/^rockiln_published_address: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$site_settings")"
  local address='^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|localhost):([0-9]+)$'
  [[ $backend =~ ^(auto|rocm|cpu)$ ]] || fail "$E_USAGE" "--backend $backend is none of auto, rocm, cpu" "./bootstrap.sh --help"
  [[ $runtime =~ ^(auto|docker|process)$ ]] || fail "$E_USAGE" "--runtime $runtime is none of auto, docker, process" "./bootstrap.sh --help"
  if [[ ! $listen =~ $address ]] || ((BASH_REMATCH[2] < 1 || BASH_REMATCH[2] > 65535)); then
    fail "$E_USAGE" "${listen:-nothing}, where to listen, is not an IP address with a port" "./bootstrap.sh --listen 127.0.0.1:8000; ip -brief address shows others"
  fi
  [[ -e $inventory ]] || fail "$E_USAGE" "there is no inventory $inventory" "see inventories/example"
  case "$backend:${release:-auto}" in
    cpu:auto) release=cpu ;;
    cpu:cpu | rocm:auto | auto:*) ;;
    cpu:* | rocm:cpu) fail "$E_USAGE" "--backend $backend and --release $release exclude each other" "./bootstrap.sh --release auto" ;;
  esac
  [[ $backend:$runtime != rocm:process ]] || fail "$E_USAGE" "--runtime process computes on the CPU" "./bootstrap.sh --backend rocm --runtime docker"
  if [[ ${release:-auto} != auto ]] && ! catalogue_releases | grep -qxF -- "$release"; then
    fail "$E_HOST" "there is no release $release in the catalogue (known: $(catalogue_releases | xargs))" "./bootstrap.sh --release auto"
  fi
  [[ -z $make_bundle || -z $offline ]] || fail "$E_USAGE" "--make-bundle and --offline exclude each other" "./bootstrap.sh --help"
  if [[ $runtime == process && -n $make_bundle$offline ]]; then
    fail "$E_USAGE" "bundles hold images; --runtime process does not use them" "./bootstrap.sh --runtime docker --offline DIR"
  fi
}

is_local() { [[ $inventory == inventories/local ]]; }

check_host() {
  is_local || { say "The hosts of $inventory are checked by the playbook."; return 0; }
  local id='' version='' machine
  machine="$(uname -m)"
  [[ $machine == x86_64 ]] || fail "$E_HOST" "this is $machine; only x86_64 is supported" "use an x86_64 host"
  [[ -r /etc/os-release ]] || fail "$E_HOST" "/etc/os-release is missing; this system is not known" "use one of: $(catalogue_os | paste -sd, -)"
  # shellcheck disable=SC1091
  id="$(. /etc/os-release && printf '%s' "${ID:-}")"
  # shellcheck disable=SC1091
  version="$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")"
  catalogue_os | grep -qxF -- "$id $version" || fail "$E_HOST" "$id $version is not supported (supported: $(catalogue_os | paste -sd, -))" \
    "use one of these, or --runtime process in a container of one"
  say "$id $version, $machine"
  if grep -qsxF -- "$amd_vendor" /sys/class/drm/card*/device/vendor; then
    if [[ $release == cpu ]]; then say "AMD GPU found and not used: the release is cpu"; else say "AMD GPU found; release: ${release:-as the inventory says}"; fi
  elif [[ $backend == rocm ]]; then
    fail "$E_HOST" "--backend rocm: this host's kernel shows no AMD GPU" "./bootstrap.sh --backend cpu, or see ansible/docs/troubleshooting.md"
  fi
}

has_capability() { # BIT
  local effective
  effective="$(sed -n 's/^CapEff:\t//p' /proc/self/status)"
  (((16#$effective >> $1) & 1))
}

docker_answers() { as_root docker version >/dev/null 2>&1; }

can_be_root() { [[ $EUID -eq 0 ]] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ $assume_yes == no && -t 0 ]]; }; }; }

# Sets runtime to docker or process; the way to process is taken only after saying why.
choose_runtime() {
  [[ $runtime == auto ]] || return 0
  local reason=''
  if ! is_local || [[ -n $make_bundle$offline ]]; then
    :
  elif ! can_be_root; then
    reason="this user is not root and cannot become root by sudo"
  elif [[ $EUID -eq 0 ]] && ! docker_answers && ! { has_capability "$cap_sys_admin" && has_capability "$cap_net_admin"; }; then
    reason="no container engine answers and this sandbox may not run one (CAP_SYS_ADMIN or CAP_NET_ADMIN is missing)"
  fi
  if [[ -n $reason ]]; then
    say "Using --runtime process: $reason."
    runtime=process
  else
    runtime=docker
  fi
}

# The variables that say where packages come from survive sudo; nothing else does.
as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  else
    local kept
    kept="$(compgen -e | grep -E '^(PIP_|ANSIBLE_|APT_CONFIG$|DEBIAN_FRONTEND$|SSL_CERT_FILE$|REQUESTS_CA_BUNDLE$|CURL_CA_BUNDLE$|(http|https|no)_proxy$|(HTTP|HTTPS|NO)_PROXY$)' | paste -sd, -)"
    sudo ${kept:+--preserve-env="$kept"} "$@"
  fi
}

check_rights() {
  [[ $EUID -ne 0 ]] || return 0
  step "Check the rights"
  command -v sudo >/dev/null || fail "$E_RIGHTS" "this user is not root and sudo is not installed" "run ./bootstrap.sh as root, or --runtime process"
  if [[ $assume_yes == yes || ! -t 0 ]]; then
    sudo -n true 2>/dev/null || fail "$E_RIGHTS" "sudo needs a password and there is nobody to ask" "run ./bootstrap.sh as root or on a terminal, or --runtime process"
  else
    sudo -v || fail "$E_RIGHTS" "sudo refused" "run ./bootstrap.sh as root, or --runtime process"
  fi
}

address_answers() { (exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null; }

is_our_proxy() {
  local found
  found="$(as_root docker ps --quiet --filter label=io.rockiln.part=proxy --filter "publish=${listen##*:}" 2>/dev/null)" && [[ -n $found ]]
}

check_address() {
  is_local && [[ -z $make_bundle ]] || return 0
  address_answers || return 0
  if [[ $runtime == docker ]] && is_our_proxy; then
    say "The service already runs on $listen."
    return 0
  fi
  fail "$E_ADDRESS" "something else already listens on $listen" "ss -ltnp shows it; stop it, or ./bootstrap.sh --listen 127.0.0.1:PORT"
}

free_mib() { # PATH, which need not exist
  local place="$1"
  while [[ ! -e $place ]]; do place="$(dirname "$place")"; done
  df --output=avail --block-size=1M "$place" | tail -n 1 | tr -d ' '
}

check_space() {
  is_local || return 0
  local place needed free
  while read -r place needed; do
    free="$(free_mib "$place")"
    ((free >= needed)) || fail "$E_DISK" "$place has $free MiB free and $needed MiB are needed" "df -h $place; free some space and run ./bootstrap.sh again"
  done < <(
    if [[ $runtime == process ]]; then
      if [[ -d $data_home/venv ]]; then echo "$data_home $data_free_mib"; else echo "$data_home $engine_free_mib"; fi
    fi
    if [[ $runtime == docker ]]; then
      is_our_proxy || echo "/var/lib/docker $engine_free_mib"
      echo "/var/lib/rockiln $data_free_mib"
    fi
  )
}
