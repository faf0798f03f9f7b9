#!/usr/bin/env bash
# Tests of the real binary with other people's programs: curl, Python's http.client, wget2, headless Chromium.
# Run from anywhere: bash tests/real/run.sh [NAME...]   (ELEVEN=path to a binary that is built already)
# Installs what is missing with apt-get when it may.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need curl:curl wget2:wget2 chromium:chromium python3:python3
built
PATH=$PATH:/usr/sbin exec python3 tests/real/suite.py "$ELEVEN" "$@"
