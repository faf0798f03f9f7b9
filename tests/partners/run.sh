#!/usr/bin/env bash
# The proxies with other people's programs: nginx, Apache, Node and Python behind; curl, nginx, HAProxy and Chromium in front.
# Run from anywhere: bash tests/partners/run.sh [NAME...]   (ELEVEN=path to a binary that is built already)
# Installs what is missing with apt-get when it may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

missing=()
for pair in curl:curl nginx:nginx apache2:apache2 haproxy:haproxy node:nodejs chromium:chromium python3:python3 openssl:openssl; do
    PATH=$PATH:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Nothing of it is to start on its own.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    apt-get install -y -qq --no-install-recommends "${missing[@]}" || { rm -f /usr/sbin/policy-rc.d; exit 1; }
    rm -f /usr/sbin/policy-rc.d
fi

if [ -z "${ELEVEN:-}" ]; then
    cargo build -p eleven --locked
    ELEVEN=${CARGO_TARGET_DIR:-target}/debug/eleven
fi
exec python3 tests/partners/suite.py "$ELEVEN" "$@"
