# Entware's package, on a router whose firmware has its own knockd. Each test is a function. Sourced
# by scripts/test-package after openwrt.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh, steps.sh and openwrt.sh

entware_install() { # entware_install RELEASE
    : > "$root/var/log/messages"
    cp "$folder"/made/*-"$1"_*.ipk "$root/packages/entware.ipk"
    router "OPKG_STATE=/opt/lib/opkg opkg install /packages/entware.ipk" > "$folder/said" 2>&1 || lost "the installation fails"
}

entware_remove() {
    router "OPKG_STATE=/opt/lib/opkg opkg remove knockd-rs" > "$folder/said" 2>&1 || lost "the removal fails"
}

service() { # service ACTION
    router "/opt/etc/init.d/S95knockd $1" > "$folder/said" 2>&1
}

ours() {
    cat "$root/opt/var/run/knockd.pid" 2> /dev/null
}

# Exactly one daemon of ours runs, and its PID is not the given one.
ours_runs() { # ours_runs [PID]
    # shellcheck disable=SC2046 # counts words
    set -- "${1-}" $(keepers | grep -vx "$foreign")
    [ $# = 2 ] && [ "$2" = "$(ours)" ] && [ "$2" != "$1" ]
}

ours_has_ended() {
    [ "$(keepers)" = "$foreign" ]
}

two_are_shown() {
    [ "$(router pidof knockd | wc -w)" = 2 ]
}

foreign_runs() {
    foreign=$(cat "$root/var/run/knockd.pid" 2> /dev/null) && [ "$(keepers)" = "$foreign" ]
}

entware_knocks() {
    await "our daemon runs" ours_runs "${1-}"
    await "it listens" logged "listening on vlan1"
    is_open && lost "open before the knock"
    knock_as_shown
    await "the knock opens" is_open
}

# The script of docs/install.md for Asuswrt-Merlin, which the firmware runs after it has rebuilt its rules.
merlin_restarts_firewall() {
    router iptables -F
    sed -n '/firewall-start << /,/^ *END$/p' docs/install.md | sed '1d; $d; s/^ *//' > "$root/packages/firewall-start"
    [ -s "$root/packages/firewall-start" ] || lost "docs/install.md has no such script"
    router sh /packages/firewall-start vlan1 || lost "the script fails"
}

test_entware() {
    test="Entware: a router with its own knockd"
    make_packages entware
    reboot_router
    mkdir -p "$root/opt/bin"
    cp tests/package/openwrt/bin/opkg "$root/bin/"
    cp "$knockd" "$root/usr/sbin/knockd"
    ln "$root/usr/sbin/knockd" "$root/usr/sbin/knockd-listener"
    printf '[options]\nInterface = lo\nStateDir = /var/run/foreign\n[x]\nsequence = 1,2,3,4,9\ntcpflags = syn\n' > "$root/etc/foreign.conf"
    router "/usr/sbin/knockd -d -c /etc/foreign.conf" > "$folder/said" 2>&1
    await "the firmware's knockd runs" foreign_runs
    ip route add default via 198.51.100.2
    nvram sshd_port=2222
    config=$root/opt/etc/knockd.conf

    test="Entware: installation"
    entware_install 1
    cp "$folder/said" "$folder/knock-shown"
    grep -q '^ *knock ROUTER .* && ssh -p 2222 root@ROUTER$' "$folder/said" || lost "the knock was not shown, or not with the router's port"
    is "$(stat -c %a "$config")" 600
    is "$(cd "$root/opt" && find . ! -type d ! -path './lib/*' | sort | tr '\n' ' ')" "./bin/knock ./etc/init.d/S95knockd ./etc/knockd.conf \
./sbin/knockd ./sbin/knockd-listener ./share/knockd/door.sh ./share/knockd/knockd.conf ./share/knockd/made ./share/knockd/make-door ./var/run/knockd.pid "
    sed -i 's/--dport 2222 /--dport 22 /' "$config" # the port that is_open tests
    await "our daemon runs" ours_runs
    await "busybox's pidof shows the daemons alone" two_are_shown
    service reconfigure || lost "no reload"
    await "the config is read again" logged "configuration reloaded"
    entware_knocks

    test="Entware: the firewall of Asuswrt-Merlin is restarted"
    merlin_restarts_firewall
    await "the rule is back" is_open

    test="Entware: start, check and a broken config"
    pid=$(ours)
    service start || lost "a second start is a failure"
    service check || lost "it is not alive"
    edited=$(md5sum < "$config")
    echo nonsense >> "$config"
    : > "$root/var/log/messages"
    if service restart; then
        lost "a restart succeeds"
    fi
    grep -q "not started: /opt/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say why"
    await "the log has the reason" logged "not started: /opt/etc/knockd.conf:"
    entware_install 2
    grep -q "the config is invalid, so the old daemon keeps running" "$folder/said" || lost "the upgrade does not say that the old daemon keeps running"
    is "$(ours)" "$pid"
    await "our daemon runs" ours_runs
    is_open || lost "the door was closed"
    sed -i '$d' "$config"
    is "$(md5sum < "$config")" "$edited"
    : > "$root/var/log/messages"
    service restart || lost "no restart"
    entware_knocks "$pid"

    test="Entware: an upgrade"
    pid=$(ours)
    entware_install 3
    is "$(md5sum < "$config")" "$edited"
    grep -q ROUTER "$folder/said" && lost "the knock was shown again"
    entware_knocks "$pid"

    test="Entware: stop and kill"
    service stop || lost "no stop"
    await "our daemon has ended" ours_has_ended
    is_closed || lost "a door is still open"
    service check && lost "it is alive"
    service start || lost "no start"
    await "our daemon runs" ours_runs
    service kill
    await "our daemon has ended" ours_has_ended
    for action in stop kill reopen reconfigure; do
        service $action || :
    done
    is "$(keeper)" "$foreign"

    test="Entware: removal, with an edited config"
    service start || lost "no start"
    await "our daemon runs" ours_runs
    entware_remove
    await "our daemon has ended" ours_has_ended
    is "$(find "$root/opt" ! -type d)" "$config"

    test="Entware: installation and removal, nothing is left behind"
    rm "$config"
    entware_install 4
    await "our daemon runs" ours_runs
    entware_remove
    await "our daemon has ended" ours_has_ended
    is "$(find "$root/opt" ! -type d)" ""
    [ ! -e "$root/opt/share/knockd" ] || lost "/opt/share/knockd was left behind"

    reboot_router
    ip route del default
    rm -r "$root/opt" "$root/bin/opkg" "$root/usr/sbin/knockd" "$root/usr/sbin/knockd-listener" "$root/etc/foreign.conf"
}
