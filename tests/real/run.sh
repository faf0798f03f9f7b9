#!/usr/bin/env bash
# Tests of the real binary with other people's programs: curl, Python's http.client, wget2, headless Chromium.
# Run from anywhere: bash tests/real/run.sh [NAME...]   (ELEVEN=path to a binary that is built already)
# Installs what is missing with apt-get when it may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

missing=()
for pair in curl:curl wget2:wget2 chromium:chromium python3:python3; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
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
exec python3 tests/real/suite.py "$ELEVEN" "$@"
