# What the scripts share. Sourced, from the top folder of the project.
# shellcheck shell=sh

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# await_for SECONDS WHAT COMMAND...: until the command succeeds; after that time lost(), which the caller has, says what did not happen.
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

# install PROGRAM:PACKAGE...: installs the packages of those programs that are not here.
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

# What the tests in network namespaces run.
install_for_lab() {
    install ip:iproute2 iptables:iptables nmap:nmap nc.openbsd:netcat-openbsd nc.traditional:netcat-traditional ncat:ncat \
        curl:curl wget:wget ssh:openssh-client python3:python3 setpriv:util-linux strace:strace \
        busybox:busybox-static killall:psmisc pgrep:procps
}

# knockd 0.8 to compare with. Its package would start a daemon where there is an init system: not here.
install_knockd() {
    [ -x /usr/sbin/knockd ] && return
    policy=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
    fi
    installed=yes
    (install knockd:knockd) || installed=no
    if [ -n "$policy" ]; then
        rm $policy
    fi
    [ $installed = yes ] || exit 1
    if [ -d /run/systemd/system ]; then
        # Fails where systemd does not answer; then it has started no service either.
        systemctl disable --quiet --now knockd.service || true
    fi
}

# A Rust toolchain: the one that is here, else Debian's newest (cargo-web; plain cargo is too old).
need_cargo() {
    if ! command -v cargo > /dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    install cargo:cargo-web rustc:rustc-web cc:gcc
}

# Builds the release; its path is then in $built.
build_release() {
    cargo build --release --locked
    built=${CARGO_TARGET_DIR:-target}/release/knockd
    [ -x "$built" ] || fail "cargo made no $built"
    built=$(realpath "$built")
}
