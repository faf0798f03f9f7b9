#!/usr/bin/env bash
# What is installed beside the program: completions as bash, zsh and fish see them, manual pages, units, the first configuration,
# the maintainer script. Run from anywhere: bash tests/packaging/run.sh   (ELEVEN=path to a binary).
# Installs what is missing with apt-get when it may.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need zsh:zsh fish:fish mandoc:mandoc systemd-analyze:systemd python3:python3
built
exec python3 tests/packaging/suite.py "$ELEVEN"
