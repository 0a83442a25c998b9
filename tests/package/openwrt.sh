# OpenWrt's package on a router with a real nft ruleset like that of its firewall (fw4), and with
# stand-ins for its settings (uci), its services (rc.common, procd) and its package managers
# (tests/package/openwrt). KNOCKD_OPENWRT: a directory with the real programs, copied over these to
# check that the results are the same. Its /etc/begin runs first, its /etc/end last. Each test is a
# function. Sourced by scripts/test-package after steps.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh and steps.sh

# Turns the router into an OpenWrt router with fw4.
openwrt_root() {
    reboot_router
    for folder_of_host in lib usr/lib; do
        rm "$root/$folder_of_host"
        mkdir "$root/$folder_of_host"
        for entry in "/$folder_of_host"/*; do
            [ "${entry##*/}" = functions ] || ln -s "/host$entry" "$root/$folder_of_host/"
        done
    done
    mkdir -p "$folder/away" "$root/etc/rc.d" "$root/etc/init.d"
    mv "$root/usr/sbin/iptables" "$root/usr/sbin/ip6tables" "$root/usr/sbin/nvram" "$folder/away/"
    printf '#!/bin/sh\nexec /host/usr/sbin/nft "$@"\n' > "$root/usr/sbin/nft"
    chmod 755 "$root/usr/sbin/nft"
    cp -r tests/package/openwrt/. "$root/"
    if [ -n "${KNOCKD_OPENWRT-}" ]; then
        cp -a "$KNOCKD_OPENWRT/." "$root/"
        router /etc/begin
    fi
    ip addr replace 2001:db8::1/64 dev vlan1 nodad
    ip -n "$wan" addr replace 2001:db8::2/64 dev eth0 nodad
    ip route add default via 198.51.100.2
    # A listener on dropbear's port.
    chroot "$root" /bin/busybox httpd -f -p '[::]:2222' -h /packages &
    sshd=$!
    : > "$root/var/log/messages"
    router fw4 start || lost "the firewall does not start"
    can_connect 198.51.100.1 && lost "the firewall does not close the port"
    before=$(router_state)
}

no_openwrt_root() {
    [ -z "${KNOCKD_OPENWRT-}" ] || router /etc/end
    kill "$sshd"
    # Supervisors that wait for their daemon, or to restart it.
    for instance in "$root"/var/run/procd/*.instance; do
        [ ! -e "$instance" ] || kill -USR2 "$(cat "$instance")"
    done
    mv "$folder"/away/* "$root/usr/sbin/"
    reboot_router
    nft delete table inet fw4 2> /dev/null || :
    ip route del default
    ip addr del 2001:db8::1/64 dev vlan1
    (cd tests/package/openwrt && find . -type f) | (cd "$root" && xargs rm -f)
    rm -f "$root/usr/sbin/nft" "$root/usr/sbin/knockd" "$root/usr/bin/knock" "$root/etc/knockd.conf" "$root/var/run/fw4.state"
    for entry in lib usr/lib usr/share etc/config etc/rc.d etc/init.d var/run/procd; do
        rm -rf "${root:?}/$entry"
    done
    ln -s host/lib "$root/lib"
    ln -s ../host/usr/lib "$root/usr/lib"
}

# Everything that an installation can change: files, settings, rules.
router_state() {
    (cd "$root" && find . -xdev \( -path ./packages -o -path ./host \) -prune -o ! -type d ! -path './usr/lib/opkg/*' ! -path './lib/apk/db/*' -print | sort)
    router uci show firewall
    router nft -s list ruleset
}

can_connect() { # can_connect ADDRESS OF THE ROUTER
    ip netns exec "$wan" timeout 3 bash -c "exec 3<> /dev/tcp/$1/2222" 2> /dev/null
}

cannot_connect() {
    ! can_connect "$1"
}

# make_packages SYSTEM: packs our program like scripts/build-ipk, as releases 1 to 4
make_packages() {
    rm -rf "$folder/made"
    [ -n "${KNOCKD_OPENWRT-}" ] || PATH=$PWD/tests/package/openwrt-sdk:$PATH
    for release in 1 2 3 4; do
        PROGRAM=$knockd OUT=$folder/made RELEASE=$release scripts/build-ipk --for "$1" "$(uname -m)" > "$folder/said" 2>&1 ||
            lost "build-ipk --for $1 fails"
    done
}

# The package managers' part. opkg and apk pass a package's files and scripts differently and in
# another order.
opkg_install() { # opkg_install RELEASE
    cp "$folder"/made/*-"$1"_*.ipk "$root/packages/openwrt.ipk"
    router "opkg install /packages/openwrt.ipk" > "$folder/said" 2>&1
}

opkg_remove() {
    router "opkg remove knockd-rs" > "$folder/said" 2>&1
}

apk_install() {
    cp "$folder"/made/*/*-r"$1".apk "$root/packages/openwrt.apk"
    # apk indents the output of scripts.
    router "apk --allow-untrusted add /packages/openwrt.apk 2>&1; echo \$? > /tmp/rc" | sed 's/^  \* //' > "$folder/said"
    [ "$(cat "$root/tmp/rc")" = 0 ]
}

apk_remove() {
    router "apk del knockd-rs" > "$folder/said" 2>&1
}

# Installs and waits until the daemon listens. The output is in $folder/said, the knock in
# $folder/knock-shown.
installs() { # installs RELEASE
    : > "$root/var/log/messages"
    "${manager}_install" "$1" || lost "the installation fails"
    await "one daemon runs" is_one
    await "it listens" logged "listening on vlan1"
}

another_keeper() {
    is_one && [ "$only" != "$1" ]
}

is_enabled() {
    [ -x "$root/etc/rc.d/S95knockd" ] && [ -e "$root/etc/rc.d/K10knockd" ]
}

knocks_and_connects() {
    for address in 198.51.100.1 2001:db8::1; do
        can_connect "$address" && lost "$address is open before the knock"
        knock_as_shown "$address"
        await "the knock opens at $address" can_connect "$address"
    done
}

# The whole life of the package with one package manager: opkg or apk.
openwrt_life() { # openwrt_life MANAGER
    manager=$1
    config=$root/etc/knockd.conf

    test="OpenWrt, $manager: installation"
    installs 1
    cp "$folder/said" "$folder/knock-shown"
    grep -q '^ *knock ROUTER .* && ssh -p 2222 root@ROUTER$' "$folder/said" || lost "the knock was not shown, or not with dropbear's port"
    is "$(stat -c %a "$config")" 600
    advice=$(router "knockd --check" 2>&1) || lost "the config is wrong: $advice"
    case $advice in
        *"warning: "*) lost "the config is unwise: $advice" ;;
    esac
    is_enabled || lost "it is not enabled at boot"
    is "$(cat "$root/lib/upgrade/keep.d/knockd-rs")" /etc/knockd.conf
    [ ! -e "$root/etc/uci-defaults/95-knockd" ] || lost "uci-defaults has not run"
    is "$(tr '\0' ' ' < "/proc/$(keeper)/cmdline")" "/usr/sbin/knockd -c /etc/knockd.conf "
    await "busybox's pidof shows the daemon alone" shown_alone
    if [ -z "${KNOCKD_OPENWRT-}" ]; then
        is "$(sort "$root/var/run/procd/knockd.is")" "$(printf '%s\n' 'command /usr/sbin/knockd -c /etc/knockd.conf' 'respawn 3600 10 0' \
            'stderr 1' 'term_timeout 15')"
    fi
    knocks_and_connects

    test="OpenWrt, $manager: the firewall is reloaded, restarted, and started again"
    router fw4 reload
    # Each door is closed for a moment, because it is re-applied.
    await "the door is still open" can_connect 198.51.100.1
    router fw4 restart
    await "the door is open again" can_connect 198.51.100.1
    await "the door is open again over IPv6" can_connect 2001:db8::1
    router "fw4 stop; fw4 start"
    await "the door is open again" can_connect 198.51.100.1
    router "knockd --close SSH 198.51.100.2" > "$folder/said" 2>&1 || lost "the door is not closed"
    await "the door is closed" cannot_connect 198.51.100.1
    can_connect 2001:db8::1 || lost "the door of another client is closed"

    test="OpenWrt, $manager: the daemon stops and starts"
    pid=$(keeper)
    router /etc/init.d/knockd restart || lost "no restart"
    await "a new daemon runs" another_keeper "$pid"
    await "the doors are closed" cannot_connect 2001:db8::1
    pid=$(keeper)
    : > "$root/var/log/messages"
    kill -9 "$pid"
    await "procd starts it again" another_keeper "$pid"
    await "it listens" logged "listening on vlan1"
    knock_as_shown 198.51.100.1
    await "the knock opens" can_connect 198.51.100.1

    test="OpenWrt, $manager: a config that was edited: reload, and an expired door"
    sed -i 's/^cmd_timeout .*/cmd_timeout = 2/' "$config"
    : > "$root/var/log/messages"
    router /etc/init.d/knockd reload || lost "no reload"
    await "the config is read again" logged "configuration reloaded"
    knock_as_shown 2001:db8::1
    await "the knock opens" can_connect 2001:db8::1
    await "the time is over" cannot_connect 2001:db8::1

    test="OpenWrt, $manager: a config that is broken"
    pid=$(keeper)
    edited=$(md5sum < "$config")
    echo nonsense >> "$config"
    : > "$root/var/log/messages"
    for action in start restart; do
        if router "/etc/init.d/knockd $action" > "$folder/said" 2>&1; then
            lost "$action succeeds"
        fi
        grep -q "not started: /etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "$action does not say why"
    done
    await "the log has the reason" logged "knockd: not started: /etc/knockd.conf:"
    "${manager}_install" 2 || lost "the upgrade fails"
    grep -q "the config is invalid, so the old daemon keeps running" "$folder/said" || lost "the upgrade does not say that the old daemon keeps running"
    is "$(keeper)" "$pid"
    sed -i '$d' "$config"
    is "$(md5sum < "$config")" "$edited"
    knock_as_shown 198.51.100.1
    await "the knock opens" can_connect 198.51.100.1
    router /etc/init.d/knockd restart
    await "a new daemon runs" another_keeper "$pid"
    await "the door is closed" cannot_connect 198.51.100.1

    test="OpenWrt, $manager: an upgrade"
    pid=$(keeper)
    router "uci set firewall.knockd_allow4.dest_port=22; uci commit firewall"
    installs 3
    another_keeper "$pid" || lost "the old daemon runs"
    is "$(md5sum < "$config")" "$edited"
    is "$(router uci get firewall.knockd_allow4.dest_port)" 22
    grep -q ROUTER "$folder/said" && lost "the knock was shown again"
    is_enabled || lost "it is not enabled"
    is "$(find "$root/etc" -name '*-opkg' -o -name '*.apk-new')" ""
    router "uci set firewall.knockd_allow4.dest_port=2222; uci commit firewall; fw4 reload"
    knock_as_shown 198.51.100.1
    await "the knock opens" can_connect 198.51.100.1

    test="OpenWrt, $manager: an upgrade of a service that was disabled"
    pid=$(keeper)
    router /etc/init.d/knockd disable
    installs 4
    is_enabled && lost "it is enabled again"

    test="OpenWrt, $manager: removal, with an edited config"
    "${manager}_remove" || lost "the removal fails"
    await "the daemon has ended" no_daemon
    is "$(router_state | grep -v '^\./etc/knockd.conf$')" "$before"
    is "$(md5sum < "$config")" "$edited"

    test="OpenWrt, $manager: installation over the previous config"
    installs 1
    grep -q ROUTER "$folder/said" && lost "a new door was made"
    is "$(md5sum < "$config")" "$edited"
    knock_as_shown 198.51.100.1
    await "the knock opens" can_connect 198.51.100.1
    "${manager}_remove" || lost "the removal fails"
    rm "$config"

    test="OpenWrt, $manager: installation and removal, nothing is left behind"
    installs 1
    "${manager}_remove" || lost "the removal fails"
    await "the daemon has ended" no_daemon
    is "$(router_state)" "$before"
    [ ! -e "$root/var/run/knockd" ] || lost "/var/run/knockd was left behind"
    [ ! -e "$root/usr/share/knockd" ] || lost "/usr/share/knockd was left behind"
}

test_openwrt() {
    test="OpenWrt: a router"
    make_packages openwrt
    openwrt_root
    openwrt_life opkg

    test="OpenWrt: together with the package knockd"
    if [ -z "${KNOCKD_OPENWRT-}" ]; then
        mkdir -p "$root/usr/lib/opkg/info"
        echo /usr/sbin/knockd > "$root/usr/lib/opkg/info/knockd.list"
        : > "$root/usr/sbin/knockd"
        installs 1
        [ ! -e "$root/usr/lib/opkg/info/knockd.list" ] || lost "the other package is still there"
        opkg_remove || lost "the removal fails"
    fi

    test="OpenWrt: dropbear listens on the LAN alone"
    router "uci set 'dropbear.@dropbear[0].DirectInterface=lan'; uci commit dropbear"
    installs 1
    advice=$(sed -n 's/^ *uci delete /uci delete /p' "$folder/said")
    [ -n "$advice" ] || lost "it does not report that nothing is reachable behind the door"
    router "${advice%;*}" || lost "the advice fails"
    router "uci get 'dropbear.@dropbear[0].DirectInterface'" 2> /dev/null && lost "the advice changes nothing"
    opkg_remove || lost "the removal fails"

    test="OpenWrt: not enough space"
    size=$(tar -xzOf "$root/packages/openwrt.ipk" ./control.tar.gz | tar -xzOf - ./control | sed -n 's/^Installed-Size: //p')
    rm -rf "$folder/tree"
    mkdir "$folder/tree"
    tar -xzOf "$root/packages/openwrt.ipk" ./data.tar.gz | tar -xzf - -C "$folder/tree"
    needed=$(find "$folder/tree" -type f -exec du --apparent-size -B 4096 {} + | awk '{ n += $1 } END { print n * 4096 }')
    if [ "$size" -lt "$needed" ] || [ "$size" -gt $((needed + 65536)) ]; then
        lost "Installed-Size is $size, the files take $needed"
    fi
    no_openwrt_root
}

# An image with the package built in: postinst runs on another machine, and uci-defaults at the
# first boot, before the firewall is up.
test_openwrt_image() {
    test="OpenWrt: an image"
    make_packages openwrt
    openwrt_root
    mkdir -p "$root/usr/lib/opkg/info"
    tar -xzOf "$folder"/made/*-1_*.ipk ./data.tar.gz | tar -xzf - -C "$root"
    tar -xzOf "$folder"/made/*-1_*.ipk ./control.tar.gz | tar -xzf - -C "$folder/made"
    tar -xzOf "$folder"/made/*-1_*.ipk ./data.tar.gz | tar -tzf - | sed -n 's,^\.\(/.*[^/]\)$,\1,p' > "$root/usr/lib/opkg/info/knockd-rs.list"
    IPKG_INSTROOT=$root "$folder/made/postinst" configure > "$folder/said" 2>&1 || lost "postinst fails"
    is "$(cat "$folder/said")" ""
    is_enabled || lost "it is not enabled"
    no_daemon || lost "a daemon runs"
    [ ! -e "$root/etc/knockd.conf" ] || lost "there is a config, with the same sequence in each router"

    test="OpenWrt: the first boot of an image"
    router fw4 stop
    router "(cd /etc/uci-defaults && . ./95-knockd) && rm /etc/uci-defaults/95-knockd; uci commit" > "$folder/knock-shown" 2>&1
    is "$(grep -vc '^ *knock ROUTER\|^knockd-rs: \|^From outside\|^$' "$folder/knock-shown")" 0
    router "fw4 start; /etc/rc.d/S95knockd boot" || lost "it does not start"
    await "it listens" logged "listening on vlan1"
    knocks_and_connects

    test="OpenWrt: removal from an image that is being built"
    tar -xzOf "$folder"/made/*-1_*.ipk ./control.tar.gz | tar -xzf - -C "$folder/made"
    IPKG_INSTROOT=$root "$folder/made/prerm" remove > "$folder/said" 2>&1 || lost "prerm fails"
    is "$(find "$root/etc/rc.d" -name '*knockd')" ""
    await "the daemon of the machine that builds lives on" is_one
    no_openwrt_root
}

# OpenWrt before 22.03: iptables.
test_openwrt_fw3() {
    test="OpenWrt with fw3"
    make_packages openwrt
    openwrt_root
    router "fw4 stop"
    mv "$root/sbin/fw4" "$folder/fw4"
    cp tests/package/openwrt-fw3/sbin/fw3 "$root/sbin/"
    mv "$folder"/away/ip*tables "$root/usr/sbin/"
    router fw3 start
    before=$(router uci show firewall; router iptables -S)
    manager=opkg
    installs 1
    cp "$folder/said" "$folder/knock-shown"
    can_connect 198.51.100.1 && lost "open before the knock"
    knock_as_shown 198.51.100.1
    await "the knock opens" can_connect 198.51.100.1
    for action in reload restart; do
        router fw3 $action
        await "the door is open again" can_connect 198.51.100.1
    done
    opkg_remove || lost "the removal fails"
    await "the daemon has ended" no_daemon
    is "$(router uci show firewall; router iptables -S)" "$before"
    rm "$root/sbin/fw3"
    no_openwrt_root
}

# A package for apk, for OpenWrt 25 and later.
test_openwrt_apk() {
    test="a package for apk, without one"
    mkdir "$folder/without-apk"
    for program in dirname sed head; do
        ln -s "$(command -v "$program")" "$folder/without-apk/"
    done
    PATH=$folder/without-apk /bin/sh scripts/build-ipk --for openwrt-apk mipsel > "$folder/said" 2>&1 || lost "that is a failure"
    is "$(cat "$folder/said")" "skipped: no .apk was made: no apk 3 or later in PATH; add the staging_dir/host/bin of an OpenWrt SDK"
    PATH=$PWD/tests/package/openwrt-sdk:$PATH APK_VERSION=2.14.4 scripts/build-ipk --for openwrt-apk mipsel > "$folder/said" 2>&1 ||
        lost "an old one is a failure"
    is "$(grep -c '^skipped: ' "$folder/said")" 1

    test="a package for apk"
    make_packages openwrt-apk
    package=$(echo "$folder"/made/*/*-r1.apk)
    is "${package##*/}" "knockd-rs-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)-r1.apk"
    first=$(sha256sum < "$package")
    make_packages openwrt-apk
    is "$(sha256sum < "$package")" "$first"
    if [ -z "${KNOCKD_OPENWRT-}" ]; then
        rm -rf "$folder/tree"
        mkdir "$folder/tree"
        tar -xzf "$package" -C "$folder/tree"
        lists=$folder/tree/tree/lib/apk/packages
        is "$(cat "$lists/knockd-rs.list")" "$(cd "$folder/tree/tree" && find . ! -type d ! -path './lib/apk/*' | sed 's/^\.//' | LC_ALL=C sort)"
        is "$(cat "$lists/knockd-rs.conffiles")" /etc/knockd.conf
        is "$(cat "$lists/knockd-rs.conffiles_static")" "/etc/knockd.conf $(sha256sum < files/etc/knockd.conf | cut -d ' ' -f 1)"
        is "$(cd "$folder/tree/scripts" && echo *)" "post-install post-upgrade pre-deinstall pre-upgrade"
        is "$(find "$folder/tree/tree" -type d ! -perm 755)" ""
    fi
    openwrt_root
    openwrt_life apk
    no_openwrt_root
}
