#!/usr/bin/env bash
# TLS as OpenSSL sees it: presets by version and suite, tickets, client certificates, stapling, closing, truncation.
# Run from anywhere: bash tests/tls/run.sh   (ELEVEN=path to a binary). Installs what is missing with apt-get when it may.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need openssl:openssl python3:python3
built
exec python3 tests/tls/suite.py "$ELEVEN"
