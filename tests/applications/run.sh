#!/usr/bin/env bash
# Tests of the application host with real Python: the worker package by itself, the server with real workers, and behind the
# real binary the cases of the comparison, reloads and kills under load, a PHP application, and Flask, Django and FastAPI.
# Run from anywhere: bash tests/applications/run.sh   (ELEVEN=path to a binary that is built already)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need python3:python3
python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
built
export PYTHONDONTWRITEBYTECODE=1
python3 crates/server/tests/python/test_worker.py
cargo test -q -p eleven-server --locked --test applications -- --ignored --test-threads 4
python3 tests/applications/compare.py --check --eleven "$ELEVEN"
python3 tests/applications/proof.py --short --eleven "$ELEVEN"
python3 tests/applications/php.py --eleven "$ELEVEN"
exec python3 tests/applications/suite.py --eleven "$ELEVEN"
