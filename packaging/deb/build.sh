#!/usr/bin/env bash
# Builds the Debian package into target/debian. Needs cargo-deb (cargo install cargo-deb).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked -p eleven
made=target/packaging
rm -rf "$made" && mkdir -p "$made/man" "$made/completions"
"$target/release/eleven" man --output "$made/man"
for shell in bash zsh fish; do
    "$target/release/eleven" completions "$shell" >"$made/completions/eleven.$shell"
done
gzip -9n "$made"/man/*.1
cargo deb -p eleven --no-build --no-strip "$@"
