#!/usr/bin/env bash
# The admin page in headless Chromium, the metrics as the parsers of Prometheus' client (and promtool, if it is here) read
# them, and the switch that drains a server.
# Run from anywhere: bash tests/admin/run.sh   (ELEVEN=path to a binary; SCREENSHOTS=directory to keep pictures in)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need chromium:chromium python3:python3 openssl:openssl
python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
built
# The parsers of the metrics' formats.
venv=${CARGO_TARGET_DIR:-target}/admin-venv
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import prometheus_client' 2>/dev/null || "$venv/bin/pip" install --quiet --disable-pip-version-check prometheus_client
PATH=$PATH:/usr/sbin exec "$venv/bin/python" tests/admin/suite.py "$ELEVEN"
