# For the suites' run.sh, which source this file: they stand in the project's root and have what they need.

# need PROGRAM:PACKAGE...   installs with apt-get the packages of the programs that are not there.
need() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing: ${missing[*]}"
    apt_install "${missing[@]}"
}

# apt_install PACKAGE...   nothing of it is to start on its own, unless the machine's owner has said otherwise already.
apt_install() {
    local policy=/usr/sbin/policy-rc.d ours="" code=0
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    if [ ! -e "$policy" ]; then
        ours=1
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get install -y -qq --no-install-recommends "$@" || code=$?
    [ -z "$ours" ] || rm -f "$policy"
    return "$code"
}

# Sets ELEVEN to a binary's absolute path: the one it names already, or one that is built now.
built() {
    if [ -z "${ELEVEN:-}" ]; then
        cargo build -p eleven --locked
        ELEVEN=${CARGO_TARGET_DIR:-target}/debug/eleven
    fi
    ELEVEN=$(realpath "$ELEVEN")
    export ELEVEN
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
