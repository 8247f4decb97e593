# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# An install without a network: write a bundle on a connected host, verify and use it on the other.
#   manifest     what it is for, KEY=VALUE
#   wheels/      the controller's, and those of the host's command
#   debs/        packages with all that they need, as a small apt repository
#   images.tar   proxy, api and worker
#   rockiln.lock.yml   what the site has locked, where it has
#   SHA256SUMS   of every file above

readonly bundle_schema=1
readonly -a bundled_packages=(python3 python3-venv python3-apt docker.io ca-certificates iproute2)

os_word() { # ID or VERSION_ID
  # shellcheck disable=SC1091
  (. /etc/os-release && printf '%s' "${!1}")
}

python_word() { /usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

write_bundle() { # DIR
  local dir
  mkdir -p "$1"
  dir="$(cd "$1" && pwd)"
  [[ -z "$(ls -A "$dir")" ]] || fail "$E_USAGE" "$dir is not empty" "name an empty folder"
  step "Make the images"
  play "$here/.venv" bundle --extra-vars "bundle_dir=$dir" || fail "$E_STEP" "$(cause_in_log)" "repair that and run it again"
  step "Fetch the wheels"
  local lock
  for lock in "$controller_lock" containers/locks/api.txt containers/locks/build.txt; do
    "$here/.venv/bin/pip" download "${pip_strict[@]}" --dest "$dir/wheels" --requirement "$lock"
  done
  step "Fetch the packages"
  fetch_packages "$dir/debs"
  step "Write the manifest"
  printf '%s\n' "schema=$bundle_schema" "os=$(os_word ID)" "os_version=$(os_word VERSION_ID)" "python=$(python_word)" \
    "release=${release:-auto}" >"$dir/manifest"
  local sums
  temporary_folder sums
  (cd "$dir" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$sums/SHA256SUMS"
  mv "$sums/SHA256SUMS" "$dir"
  say "The bundle is in $dir ($(du -sh "$dir" | cut -f1)). On the other host, from the same checkout: ./bootstrap.sh --offline DIR"
}

# As for a machine that has nothing: every package that could be missing is in it.
fetch_packages() { # DIR
  local state packages=("${bundled_packages[@]}")
  temporary_folder state
  as_root apt-get -qq update
  # Debian 13 keeps the engine's client in a package of its own.
  [[ -z "$(apt-cache --quiet=0 search --names-only '^docker-cli$')" ]] || packages+=(docker-cli)
  mkdir -p "$1/partial"
  : >"$state/status"
  as_root apt-get -qq --yes --no-install-recommends --download-only -o "Dir::State::status=$state/status" -o "Dir::Cache::archives=$1/" \
    -o APT::Sandbox::User=root install "${packages[@]}" >/dev/null
  rm -rf "$1/partial" "$1/lock"
  local deb
  for deb in "$1"/*.deb; do
    dpkg-deb --field "$deb"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
  done >"$1/Packages"
}

manifest_value() { sed -n "s/^$2=//p" "$1/manifest"; }

check_bundle() { # DIR
  step "Verify the bundle"
  local again="make the bundle anew on a connected host: ./bootstrap.sh --make-bundle DIR" bad unlisted
  [[ -f $1/SHA256SUMS && -f $1/manifest ]] || fail "$E_BUNDLE" "$1 is not a bundle: SHA256SUMS or manifest is missing" "$again"
  bad="$(cd "$1" && sha256sum --check --quiet SHA256SUMS 2>&1)" || fail "$E_BUNDLE" "the bundle is damaged: ${bad%%$'\n'*}" "$again"
  unlisted="$(cd "$1" && comm -13 <(sed 's/^[0-9a-f]*  //' SHA256SUMS | sort) <(find . -type f ! -name SHA256SUMS | sort))"
  [[ -z $unlisted ]] || fail "$E_BUNDLE" "the bundle has files that its checksums do not name: ${unlisted%%$'\n'*}" "$again"
  local wanted
  wanted="$bundle_schema $(os_word ID) $(os_word VERSION_ID)"
  bad="$(manifest_value "$1" schema) $(manifest_value "$1" os) $(manifest_value "$1" os_version)"
  [[ $bad == "$wanted" ]] || fail "$E_BUNDLE" "the bundle is for \"$bad\" (schema, OS), this host is \"$wanted\"" "$again"
}

# pip, apt and the images come from the bundle alone. The checksums were verified, so apt may trust the folder.
use_bundle() { # DIR
  local dir state
  dir="$(cd "$1" && pwd)"
  temporary_folder state
  chmod 0755 "$state"
  mkdir -p "$state/lists/partial"
  printf 'deb [trusted=yes] file:%s/debs ./\n' "$dir" >"$state/sources.list"
  printf '%s\n' "Dir::Etc::sourcelist \"$state/sources.list\";" 'Dir::Etc::sourceparts "-";' "Dir::State::lists \"$state/lists\";" \
    'Acquire::Languages "none";' 'APT::Sandbox::User "root";' >"$state/apt.conf"
  export APT_CONFIG="$state/apt.conf" PIP_NO_INDEX=1 PIP_FIND_LINKS="$dir/wheels" PIP_CONFIG_FILE=/dev/null
  local inventory_dir="$inventory"
  [[ -d $inventory_dir ]] || inventory_dir="$(dirname "$inventory")"
  # One of the site's own stays.
  [[ ! -e $dir/rockiln.lock.yml || -e $inventory_dir/rockiln.lock.yml ]] || cp "$dir/rockiln.lock.yml" "$inventory_dir"
  playbook_arguments+=(--extra-vars "{\"inference_image_archives\": [\"$dir/images.tar\"], \"inference_image_build_allowed\": false}")
}
