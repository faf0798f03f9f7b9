#!/usr/bin/env bash
# `eleven get` against other people's servers: nginx, Apache, Python. Run from anywhere:
# bash tests/downloads/run.sh [NAME...]   (ELEVEN=path to a binary that is built already)
# Installs what is missing with apt-get when it may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

missing=()
for pair in nginx:nginx-light apache2:apache2-bin python3:python3 openssl:openssl; do
    PATH=$PATH:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [ -z "${ELEVEN:-}" ]; then
    cargo build -p eleven --locked
    ELEVEN=${CARGO_TARGET_DIR:-target}/debug/eleven
fi
PATH=$PATH:/usr/sbin exec python3 tests/downloads/suite.py "$ELEVEN" "$@"
