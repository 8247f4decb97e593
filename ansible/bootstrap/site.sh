# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# The playbook, the first picture, and what the user is told at the end.

readonly first_prompt='a red boat on a lake at sunset, snowy mountains' first_seed=7
readonly rockiln_command=/opt/rockiln/bin/rockiln first_key=/etc/rockiln/first-key

play() { # VENV PLAYBOOK ARGUMENTS...
  local venv="$1" playbook="$2" status=0 wishes=()
  shift 2
  # What nobody asked for here stays as the inventory has it.
  [[ -z $release ]] || wishes+=(--extra-vars "rocm_catalogue_release=$release")
  [[ $backend == auto ]] || wishes+=(--extra-vars "preflight_backend=$backend")
  [[ -z $wished_listen ]] || wishes+=(--extra-vars "rockiln_published_address=$listen")
  export ANSIBLE_CONFIG="$here/ansible.cfg" ANSIBLE_DISPLAY_SKIPPED_HOSTS=false PYTHONDONTWRITEBYTECODE=1
  as_root env PATH="$venv/bin:$PATH" "$venv/bin/ansible-playbook" --inventory "$inventory" "ansible/playbooks/$playbook.yml" \
    "${wishes[@]}" "$@" "${playbook_arguments[@]}" 2>&1 | tee "${log_file:-/dev/null}" || status="${PIPESTATUS[0]}"
  return "$status"
}

cause_in_log() { # the message of the last failed task, on one line
  local cause
  cause="$(sed -n '/^fatal: /,/^$/p' "$log_file" | sed -n '/^ *msg: */,$p' | sed '1s/^ *msg: *//' | tr -s ' \n' ' ' | cut -c1-600)"
  printf '%s' "${cause:-the playbook stopped; its last lines are above}"
}

run_site() {
  # Else the next upgrade would take the service back to where it was.
  [[ -z $wished_listen ]] || ! is_local || sed -i "s/^rockiln_published_address: .*/rockiln_published_address: $listen/" "$site_settings"
  step "Provision the host and deploy the service"
  play "$here/.venv" site || fail "$E_STEP" "$(cause_in_log)" "repair that and run ./bootstrap.sh again"
}

predict_site() {
  step "Predict what would be done"
  local venv="$here/.venv" folder='' missing
  missing="$(missing_packages | xargs)"
  if [[ -n $missing ]]; then
    say "The checks above passed. The playbook cannot be asked yet: a real run would first install $missing."
    say "Nothing was changed."
    return 0
  fi
  if ! venv_is_current "$venv" "$(venv_key /usr/bin/python3 "$controller_lock")"; then
    temporary_folder folder
    venv="$folder/venv"
    make_controller_venv "$venv"
  fi
  log_file=''
  play "$venv" site --check --diff || fail "$E_STEP" "the prediction failed; its last lines are above" "repair that and run ./bootstrap.sh --check again"
  say "Nothing was changed."
}

draw() { # COMMAND PICTURE
  "$1" generate "$first_prompt" --seed "$first_seed" --url "http://$listen" --output "$2" >/dev/null
}

say_done() { # PICTURE LOG
  local header=''
  [[ ! -e $first_key ]] || header=" -H \"Authorization: Bearer \$(sudo cat $first_key)\""
  cat <<END

The service runs.
  picture:  $1
  service:  http://$listen   (a page for people: http://$listen/ui/)
  try it:   curl -X POST http://$listen/generate$header -H 'Content-Type: application/json' -d '{"prompt": "$first_prompt", "seed": $first_seed}' -o boat.png
  log:      $2
END
}

first_picture() {
  is_local || { say "The hosts of $inventory are ready."; return 0; }
  if [[ ! $listen =~ ^(127\.|localhost:) ]] && ! as_root test -s "$first_key"; then
    say "The service runs on $listen. No picture is made: $first_key, the key for that, is gone."
    return 0
  fi
  step "Make the first picture"
  local picture=/var/lib/rockiln/first-picture.png
  # shellcheck disable=SC2016 # expanded by root's shell, which may read the key
  as_root bash -c '[[ ! -e $1 ]] || export ROCKILN_KEY="$(<"$1")"; exec "${@:2}"' bash "$first_key" \
    "$rockiln_command" generate "$first_prompt" --seed "$first_seed" --url "http://$listen" --output "$picture" >/dev/null ||
    fail "$E_NOT_READY" "the service runs and made no picture" "docker logs rockiln-worker"
  say_done "$picture" "$log_file; docker logs rockiln-api, rockiln-worker, rockiln-proxy"
}
