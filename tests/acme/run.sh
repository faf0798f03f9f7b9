#!/usr/bin/env bash
# Certificates by ACME from Pebble, an authority for tests: both kinds of challenge, a renewal, and what goes wrong.
# ELEVEN names the binary. Installs what is missing with apt-get when it may.
set -euo pipefail
eleven=$(realpath "${ELEVEN:-target/debug/eleven}")
cd "$(dirname "${BASH_SOURCE[0]}")"

missing=()
for program in pebble pebble-challtestsrv openssl python3; do
    command -v "$program" >/dev/null || missing+=("${program/pebble-challtestsrv/pebble}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
exec python3 suite.py "$eleven"
