#!/usr/bin/env bash
# The proxies with other people's programs: nginx, Apache, Node and Python behind; curl, nginx, HAProxy and Chromium in front.
# Run from anywhere: bash tests/partners/run.sh [NAME...]   (ELEVEN=path to a binary that is built already)
# Installs what is missing with apt-get when it may.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need curl:curl nginx:nginx apache2:apache2 haproxy:haproxy node:nodejs chromium:chromium python3:python3 openssl:openssl
built
PATH=$PATH:/usr/sbin exec python3 tests/partners/suite.py "$ELEVEN" "$@"
