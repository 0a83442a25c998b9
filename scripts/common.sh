# Functions that the scripts share. Source it from the top directory of the project.
# shellcheck shell=sh

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# Prints the comment at the top of the script.
show_help() {
    sed -n '2,/^[^#]/{/^# shellcheck /!s/^# \{0,1\}//p}' "$0"
}

# await_for SECONDS WHAT COMMAND...: retries the command until it succeeds.
# After SECONDS calls lost(), which the caller defines, with a text that names WHAT.
await_for() {
    tries_left=$((10 * $1)) awaited="not within $1 seconds: $2"
    shift 2
    until "$@"; do
        tries_left=$((tries_left - 1))
        [ "$tries_left" -gt 0 ] || lost "$awaited"
        sleep 0.1
    done
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "needs root, for network namespaces; run: sudo $0"
}

# install PROGRAM:PACKAGE...: installs the package of each program that is missing.
install() {
    packages=
    for pair in "$@"; do
        command -v "${pair%%:*}" > /dev/null || packages="$packages ${pair#*:}"
    done
    [ -n "$packages" ] || return 0
    command -v apt-get > /dev/null || fail "these are missing, and there is no apt-get to install them:$packages"
    say "Installing:$packages"
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of packages
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends $packages; } > "$log" 2>&1 < /dev/null; then
        cat "$log" >&2
        rm -f "$log"
        fail "apt-get could not install:$packages"
    fi
    rm -f "$log"
}

# Installs the programs that the tests in network namespaces run.
install_for_lab() {
    install ip:iproute2 iptables:iptables nmap:nmap nc.openbsd:netcat-openbsd nc.traditional:netcat-traditional ncat:ncat \
        curl:curl wget:wget ssh:openssh-client python3:python3 setpriv:util-linux strace:strace \
        busybox:busybox-static killall:psmisc pgrep:procps
}

# Installs knockd 0.8, to compare with. The policy keeps its package from starting a daemon.
install_knockd() {
    [ -x /usr/sbin/knockd ] && return
    policy=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
    fi
    status=0
    (install knockd:knockd) || status=1
    if [ -n "$policy" ]; then
        rm $policy
    fi
    [ $status = 0 ] || exit 1
    if [ -d /run/systemd/system ]; then
        # Fails if systemd does not answer, but then it has not started the service either.
        systemctl disable --quiet --now knockd.service || true
    fi
}

# Finds a Rust toolchain, or installs Debian's newest: cargo-web, because plain cargo is too old.
need_cargo() {
    if ! command -v cargo > /dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    install cargo:cargo-web rustc:rustc-web cc:gcc
}

# Builds the release and sets $built to its path.
build_release() {
    cargo build --release --locked
    built=${CARGO_TARGET_DIR:-target}/release/knockd
    [ -x "$built" ] || fail "cargo build succeeded, but $built is missing"
    built=$(realpath "$built")
}
