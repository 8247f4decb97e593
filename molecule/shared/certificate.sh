#!/usr/bin/env bash
# A certificate for kiln.example that nobody has signed, and its key, where ansible/docs/tls.md has them.
set -euo pipefail
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=kiln.example \
  -addext subjectAltName=DNS:kiln.example -keyout /etc/ssl/private/kiln.key -out /etc/ssl/kiln.pem 2>/dev/null
