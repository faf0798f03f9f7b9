#!/usr/bin/env bash
# The public HTTP cache test suite against the real binary, in memory and with a cache directory behind it. Installs
# the suite beside this file on first use. Usage: tests/cache-suite/run.sh [PATH-OF-ELEVEN]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
eleven=$(realpath "${1:-$here/../../target/debug/eleven}")
cd "$here"
[ -d node_modules/http-cache-tests ] || npm install --no-package-lock --no-audit --no-fund --silent
echo "in memory"
run() { node --no-warnings run.mjs "$eleven" "$@"; }
# Lifetimes in the suite are two seconds: on a machine that stalls for longer, once more.
run || run
echo "in memory and on disk"
run --dir || run --dir
