# A router on which packages are installed: busybox in its own root directory, with a fake nvram, in
# namespaces that end with the test. Sourced by scripts/test-package inside of those namespaces.
# Sets $root, and $wan, the namespace of the Internet.
# shellcheck shell=sh disable=SC2154 # test-package and the tests set the rest

root=$folder/root
wan=internet

# router COMMAND...: runs it in a shell on the router; standard input is not a terminal
router() {
    chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/sbin:/bin:/sbin \
        /bin/sh -c "$*" < /dev/null
}

make_root() {
    mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/etc" "$root/dev" "$root/proc" \
        "$root/var" "$root/tmp" "$root/jffs" "$root/packages" "$root/host" "$root/run"
    cp "$(command -v busybox)" "$root/bin/busybox"
    chroot "$root" /bin/busybox --install -s
    # iptables, and a dynamically linked daemon, need the host's libraries.
    mount --bind / "$root/host"
    mount -o remount,ro,bind "$root/host"
    ln -s host/lib "$root/lib"
    ln -s host/lib64 "$root/lib64"
    ln -s ../host/usr/lib "$root/usr/lib"
    for program in iptables ip6tables; do
        printf '#!/bin/sh\nexec /host/usr/sbin/xtables-legacy-multi %s "$@"\n' "$program" > "$root/usr/sbin/$program"
    done
    cp tests/package/ipkg "$root/bin/ipkg"
    cat > "$root/usr/sbin/nvram" << 'END'
#!/bin/sh
# nvram get NAME
sed -n "s/^$2=//p" /etc/nvram
END
    printf '#!/bin/sh\nnvram get wanface\n' > "$root/usr/sbin/get_wanface"
    chmod 755 "$root/usr/sbin/get_wanface" "$root/usr/sbin/iptables" "$root/usr/sbin/ip6tables" "$root/usr/sbin/nvram"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    mknod -m 666 "$root/dev/null" c 1 3
    mknod -m 666 "$root/dev/zero" c 1 5
    mknod -m 666 "$root/dev/urandom" c 1 9
    mount -t tmpfs var "$root/var"
    mkdir "$root/var/run" "$root/var/log"
    mount -t tmpfs tmp "$root/tmp"
    chroot "$root" /bin/busybox syslogd -n -O /var/log/messages &
}

make_network() {
    mount -t tmpfs run /run # iproute2 keeps its namespaces there; this makes it private
    ip link set lo up
    ip netns add "$wan"
    link vlan1
}

# link NAME: gives the router's link to the Internet this name
link() {
    ip link add "$1" type veth peer name eth0 netns "$wan"
    ip addr add 198.51.100.1/24 dev "$1"
    ip link set "$1" up
    ip -n "$wan" addr add 198.51.100.2/24 dev eth0
    ip -n "$wan" link set eth0 up
}

# A reboot: /tmp and /var are empty, no process of the package runs, and there are no rules.
reboot_router() {
    # This namespace contains only our processes. Scripts that are waiting to start a daemon are
    # killed first.
    for pid in $(pgrep -f 'knockd.startup|info/.*preinst') $(keepers) $(pidof knockd); do
        kill -9 "$pid" 2> /dev/null || :
    done
    await "no process is left" no_daemon
    rm -rf "$root/var/run/knockd" "$root/var/run/knockd.pid"
    find "$root/tmp" -mindepth 1 -delete
    router iptables -F
}

nvram() {
    printf '%s\n' sys_enable_jffs2=1 "$@" > "$root/etc/nvram"
}

# jffs KILOBYTES: mounts a new, empty one
jffs() {
    reboot_router
    umount "$root/jffs" 2> /dev/null || :
    mount -t tmpfs -o "size=${1}k,mode=755" jffs "$root/jffs"
}

# The PIDs of the daemons without their listeners. A process that a daemon has just forked, or that
# only checks for a running daemon, is indistinguishable for a moment.
keepers() {
    for pid in $(pidof knockd); do
        # A listener has this name in its command line.
        { tr '\0' ' ' < "/proc/$pid/cmdline"; } 2> /dev/null | grep -q '^knockd-' || echo "$pid"
    done
}

is_one() {
    only=$(keepers)
    case $only in
        '' | *[!0-9]*) return 1 ;;
    esac
}

# Waits until there is exactly one candidate.
keeper() {
    await "there is one daemon" is_one
    echo "$only"
}

no_daemon() {
    [ -z "$(pidof knockd)" ]
}

daemon() {
    cat "$root/var/run/knockd.pid" 2> /dev/null
}

one_daemon() {
    # shellcheck disable=SC2046 # counts words
    set -- $(keepers)
    [ $# = 1 ] && [ "$(daemon)" = "$1" ]
}

same_daemon() {
    one_daemon && [ "$(daemon)" = "$1" ]
}

logged() {
    grep -qF "$1" "$root/var/log/messages"
}

# pack VERSION FILE [ARCH]: packs the program $knockd in the format of scripts/build-ipk
pack() {
    rm -rf "$folder/pack"
    mkdir -p "$folder/pack/data/usr/sbin" "$folder/pack/data/usr/bin" "$folder/pack/data/etc" "$folder/pack/control"
    cp "$knockd" "$folder/pack/data/usr/sbin/knockd"
    ln -s ../sbin/knockd "$folder/pack/data/usr/bin/knock"
    cp files/etc/knockd.conf "$folder/pack/data/etc/"
    chmod 600 "$folder/pack/data/etc/knockd.conf"
    cp -r files/etc/config "$folder/pack/data/etc/"
    cp ipkg/conffiles "$folder/pack/control/"
    for script in preinst postinst prerm postrm; do
        sed -e '/^\. .*door\.sh/{r files/share/door.sh' -e 'd;}' "ipkg/$script" | sed '/^ *# /d' > "$folder/pack/control/$script"
        chmod 755 "$folder/pack/control/$script"
    done
    echo "# $1" >> "$folder/pack/control/postrm" # versions differ
    sed "s/@VERSION@/$1/; s/@ARCH@/${3:-all}/" ipkg/control.in > "$folder/pack/control/control"
    archive control
    archive data
    echo 2.0 > "$folder/pack/debian-binary"
    tar -C "$folder/pack" --format=ustar --owner=0 --group=0 -czf "$2" ./debian-binary ./control.tar.gz ./data.tar.gz
}

archive() {
    tar -C "$folder/pack/$1" --format=ustar --owner=0 --group=0 -czf "$folder/pack/$1.tar.gz" .
}

# await WHAT COMMAND...: repeats the command until it succeeds, for 20 seconds
await() {
    await_for 20 "$@"
}

lost() {
    {
        printf '\nFAILED: %s: %s\n' "$test" "$*"
        echo "---- syslog"
        tail -n 30 "$root/var/log/messages"
        echo "---- package manager"
        cat "$folder/said"
        echo "---- processes"
        ps -eo pid,args
    } >&2
    exit 1
}

is() {
    [ "$1" = "$2" ] || lost "expected \"$2\", found \"$1\""
}

# ipkg ARGUMENTS: must succeed; the output is in $folder/said
ipkg() {
    router "ipkg $*" > "$folder/said" 2>&1 || lost "ipkg $* failed"
}

refused() {
    if router "ipkg $*" > "$folder/said" 2>&1; then
        lost "ipkg $* succeeded"
    fi
}
