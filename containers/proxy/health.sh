#!/bin/bash
# Does nginx itself answer? Asks its own page, not the api behind it: a dead api must not restart the front.
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET /__proxy HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
IFS=' ' read -r -t 4 _ status _ <&3
if [[ $status != 204 ]]; then
  echo "nginx answered $status" >&2
  exit 1
fi
