#!/usr/bin/env bash
# `eleven get` against other people's servers: nginx, Apache, Python. Run from anywhere:
# bash tests/downloads/run.sh [NAME...]   (ELEVEN=path to a binary that is built already)
# Installs what is missing with apt-get when it may.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need nginx:nginx-light apache2:apache2-bin python3:python3 openssl:openssl
built
PATH=$PATH:/usr/sbin exec python3 tests/downloads/suite.py "$ELEVEN" "$@"
