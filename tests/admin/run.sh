#!/usr/bin/env bash
# The admin page in headless Chromium, and the metrics as Prometheus' own checker reads them (if promtool is here).
# Run from anywhere: bash tests/admin/run.sh   (ELEVEN=path to a binary; SCREENSHOTS=directory to keep pictures in)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need chromium:chromium python3:python3 openssl:openssl
built
PATH=$PATH:/usr/sbin exec python3 tests/admin/suite.py "$ELEVEN"
