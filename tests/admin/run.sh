#!/usr/bin/env bash
# The admin page in headless Chromium, and the metrics as Prometheus' own checker reads them (if promtool is here).
# Run from anywhere: bash tests/admin/run.sh   (ELEVEN=path to a binary; SCREENSHOTS=directory to keep pictures in)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

missing=()
for program in chromium python3; do
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
exec python3 tests/admin/suite.py "$ELEVEN"
