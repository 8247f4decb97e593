# shellcheck shell=bash disable=SC2034,SC2154 # names are shared with bootstrap.sh, which is checked with all parts
# Without a container engine: the same api and worker as plain processes under one foreground command, without root.

readonly data_home="${XDG_DATA_HOME:-$HOME/.local/share}/rockiln"

process_python() { # the interpreter that the torch of the catalogue's row has a wheel for
  local wanted candidate
  wanted="$(catalogue_value python)"
  for candidate in "python$wanted" "/usr/bin/python$wanted" python3 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null &&
      [[ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" == "$wanted" ]]; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

finish_check_of_process() {
  check_address
  check_space
  process_python >/dev/null || no_python
  say "A real run would install torch and the service into $data_home/venv and run them in the foreground. Nothing was changed."
  exit 0
}

no_python() {
  local wanted
  wanted="$(catalogue_value python)"
  fail "$E_HOST" "process mode needs Python $wanted: torch $(catalogue_value version) is locked for it" \
    "apt-get install python$wanted python$wanted-venv (Debian 12, Ubuntu 22.04), or --runtime docker"
}

torch_requirement() {
  printf 'torch==%s --hash=sha256:%s\n' "$(catalogue_cpu | sed -n '/^    torch:/,$p' | sed -n 's/^ *version: //p' | head -n 1)" "$(catalogue_value sha256)"
}

install_process() {
  local python venv="$data_home/venv" key work install
  check_address
  check_space
  python="$(process_python)" || no_python
  python_can_make_venvs "$python" || fail "$E_HOST" "$python cannot make virtual environments" "apt-get install python$(catalogue_value python)-venv"
  mkdir -p "$data_home/public"
  log_file="$data_home/bootstrap.log"
  : >"$log_file"
  key="$(venv_key "$python" containers/locks/worker.txt containers/locks/build.txt "$catalogue" service/pyproject.toml) $(tree_key service/src)"
  venv_is_current "$venv" "$key" && return 0

  step "Install torch and the service into $venv"
  temporary_folder work
  rm -rf "$venv"
  "$python" -m venv "$venv"
  torch_requirement >"$work/torch.txt"
  # A wheel folder of the host may have it; else its one index. The hash decides in either case.
  # Python compiles what is used at the first start; pip would compile all of torch.
  install=("$venv/bin/pip" install "${pip_strict[@]}" --no-compile)
  "${install[@]}" --no-index --requirement "$work/torch.txt" >>"$log_file" 2>&1 ||
    "${install[@]}" --index-url "$(catalogue_value index)" --requirement "$work/torch.txt" ||
    fail "$E_STEP" "pip could not install torch from its index, $(catalogue_value index)" "check the network, or name a folder that has the wheel: PIP_FIND_LINKS=DIR ./bootstrap.sh"
  "${install[@]}" --requirement containers/locks/worker.txt ||
    fail "$E_STEP" "pip could not install containers/locks/worker.txt" "check the network or pip's settings (pip config list), then ./bootstrap.sh again"
  "${install[@]}" --target "$work/build" --requirement containers/locks/build.txt
  mkdir "$work/project"
  cp -R service/pyproject.toml service/src "$work/project"
  PYTHONPATH="$work/build" "$venv/bin/pip" wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir "$work/dist" "$work/project"
  "$venv/bin/pip" install --quiet --no-index --no-deps "$work"/dist/*.whl
  "$venv/bin/python" -m rockiln.platforms.wheel_guard --backend cpu || fail "$E_STEP" "the installed torch is not the wanted one" "rm -rf $venv, then ./bootstrap.sh again"
  printf '%s' "$key" >"$venv/rockiln-key"
}

tree_key() { find "$1" -name '*.pyc' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }

write_process_facts() {
  cat >"$data_home/public/host.json" <<END
{"schema": 1, "rockiln_version": "$(sed -n 's/^version = "\(.*\)"/\1/p' service/pyproject.toml)", "release": "cpu", "backend": "cpu",
 "images": {}, "gpu": null, "runtime": "process",
 "host": {"os": "$(os_word ID)", "os_version": "$(os_word VERSION_ID)", "kernel": "$(uname -r)", "python": "$(catalogue_value python)"}}
END
}

run_process() {
  local command="$data_home/venv/bin/rockiln" picture="$data_home/first-picture.png" service_log="$data_home/rockiln.log" pid status=0
  write_process_facts
  export ROCKILN_PUBLIC_DIR="$data_home/public" ROCKILN_DATA_DIR="$data_home" ROCKILN_BUNDLED_MODELS_DIR="$here/service/models"
  export ROCKILN_PUBLISHED_ADDRESS="$listen" HF_HUB_OFFLINE=1
  step "Start the service"
  "$command" serve --listen "$listen" >>"$service_log" 2>&1 &
  pid=$!
  # shellcheck disable=SC2064
  trap "kill -TERM $pid 2>/dev/null" INT TERM
  trap - ERR
  if ! "$command" wait --url "http://$listen" --timeout-seconds 180; then
    kill -TERM "$pid" 2>/dev/null
    fail "$E_NOT_READY" "the service did not become ready" "tail -n 40 $service_log"
  fi
  step "Make the first picture"
  if ! draw "$command" "$picture"; then
    kill -TERM "$pid" 2>/dev/null
    fail "$E_NOT_READY" "the service runs and made no picture" "tail -n 40 $service_log"
  fi
  say_done "$picture" "$service_log"
  say "It runs in the foreground; Ctrl-C stops it."
  wait "$pid" || status=$?
  # A signal ends the first wait; the second tells how the service itself ended.
  ((status <= 128)) || { status=0; wait "$pid" || status=$?; }
  exit "$status"
}
