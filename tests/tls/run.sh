#!/usr/bin/env bash
# TLS as OpenSSL sees it: presets by version and suite, tickets, client certificates, stapling, closing, truncation.
# Run from anywhere: bash tests/tls/run.sh   (ELEVEN=path to a binary). Installs what is missing with apt-get when it may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

missing=()
for program in openssl python3; do
    command -v "$program" >/dev/null || missing+=("$program")
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
exec python3 tests/tls/suite.py "$ELEVEN"
