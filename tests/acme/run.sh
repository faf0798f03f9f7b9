#!/usr/bin/env bash
# Certificates by ACME from Pebble, an authority for tests: both kinds of challenge, a renewal, and what goes wrong.
# ELEVEN names the binary. Installs what is missing with apt-get when it may.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need pebble:pebble pebble-challtestsrv:pebble openssl:openssl python3:python3
built
PATH=$PATH:/usr/sbin exec python3 tests/acme/suite.py "$ELEVEN"
