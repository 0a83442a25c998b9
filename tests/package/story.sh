# What can happen to an installable package: its whole life, boots, and different routers. Each test
# is a function. Sourced by scripts/test-package after steps.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh and steps.sh

# Everything that can happen to a package, in the tree of one destination.
life() { # life DESTINATION TREE NAME_OF_FILE_1 NAME_OF_FILE_2
    tree=$2
    first_install "$1" "$tree" "$3"
    await "it starts on the WAN interface" logged "started on vlan1 with $tree/etc/knockd.conf"
    works "$tree"

    test="$1, $3: hooks again and again, and the classic way"
    pid=$(daemon)
    for hook in etc/config/knockd.startup etc/config/knockd.wanup etc/config/knockd.startup .init; do
        router "$tree/$hook"
    done
    router "$tree/usr/sbin/knockd -d -i vlan1 -c $tree/etc/knockd.conf" > "$folder/said" 2>&1 || lost "a second start is a failure"
    grep -q 'already runs' "$folder/said" || lost "the second start does not report the running daemon"
    await "the hooks are done" no_hook
    await "the same daemon runs, alone" same_daemon "$pid"

    test="$1, $3: reinstall"
    sequence=$(sequence_of "$tree")
    ipkg -d "$1" install "/packages/$3"
    grep -q 'Configuration file' "$folder/said" && lost "it asks about an unchanged config"
    is "$(noted "$2")" "$(md5sum < "$config" | cut -d ' ' -f 1)"
    is "$(sequence_of "$tree")" "$sequence"
    grep -q 'knock ROUTER' "$folder/said" && lost "the knock was shown again"
    await "another daemon runs" another_daemon "$pid"
    is_open && lost "a door of the old daemon is open"
    works "$tree"

    test="$1, $3: upgrade with a changed config"
    pid=$(daemon)
    echo '# mine' >> "$config"
    ipkg -d "$1" install "/packages/$4"
    grep -q 'Configuration file' "$folder/said" && lost "it asks about an edited config"
    is "$(noted "$2")" "<custom>"
    is "$(tail -n 1 "$config")" "# mine"
    is "$(sequence_of "$tree")" "$sequence"
    await "another daemon runs" another_daemon "$pid"
    works "$tree"

    test="$1, $3: remove, with a changed config"
    ipkg -d "$1" remove knockd-rs
    await "the daemon has ended" no_daemon
    is_open && lost "a door is still open"
    nothing_left "$1" "$tree" "$tree/etc/knockd.conf"

    test="$1, $3: install over the previous config"
    ipkg -d "$1" install "/packages/$3"
    is "$(noted "$2")" "<custom>"
    is "$(sequence_of "$tree")" "$sequence"
    grep -q 'knock ROUTER' "$folder/said" && lost "a new door was made"
    await "one daemon runs" one_daemon
    ipkg -d "$1" remove knockd-rs
    rm -f "$config"

    test="$1, $3: install and remove, nothing is left behind"
    before=$sequence
    first_install "$1" "$tree" "$3"
    [ "$sequence" != "$before" ] || lost "the same sequence was made twice"
    await "one daemon runs" one_daemon
    nothing_staged "$tree"
    ipkg -d "$1" remove knockd-rs
    nothing_left "$1" "$tree"

    test="$1, $3: install, reinstall and remove, nothing is left behind"
    first_install "$1" "$tree" "$3"
    ipkg -d "$1" install "/packages/$3"
    ipkg -d "$1" install "/packages/$4"
    await "one daemon runs" one_daemon
    ipkg -d "$1" remove knockd-rs
    nothing_left "$1" "$tree"
}

test_install() {
    for names in "knockd-rs_1.0.0-1_all.ipk knockd-rs_1.0.0-2_all.ipk" "knockd-rs.ipk knockd-rs.ipk"; do
        # shellcheck disable=SC2086 # two names
        set -- $names
        test="root, $1: install"
        jffs 4096
        life root /jffs "$1" "$2"
        test="ram, $1: install"
        reboot_router
        life ram /tmp "$1" "$2"
    done
    test="one name after the other: install"
    jffs 4096
    life root /jffs knockd-rs.ipk knockd-rs_1.0.0-2_all.ipk
}

# A client that, like opkg, unpacks where the package cannot look, and keeps its files elsewhere.
test_other_client() {
    test="another package manager: install"
    jffs 4096
    nvram wan_proto=dhcp wan_ifname=vlan1
    : > "$root/var/log/messages"
    mkdir -p "$root/jffs/usr/lib/opkg/info"
    for script in preinst postinst prerm postrm; do
        tar -xzOf "$root/packages/knockd-rs_1.0.0-1_all.ipk" ./control.tar.gz | tar -xzOf - "./$script" \
            > "$root/jffs/usr/lib/opkg/info/knockd-rs.$script"
        chmod 755 "$root/jffs/usr/lib/opkg/info/knockd-rs.$script"
    done
    cp "$root/jffs/usr/lib/opkg/info/knockd-rs.preinst" "$root/tmp/preinst"
    router "PKG_ROOT=/jffs /tmp/preinst install" > "$folder/said" 2>&1 || lost "preinst fails"
    router "tar -xzOf /packages/knockd-rs_1.0.0-1_all.ipk ./data.tar.gz | tar -xzf - -C /jffs"
    router "PKG_ROOT=/jffs /jffs/usr/lib/opkg/info/knockd-rs.postinst configure" > "$folder/said" 2>&1 || lost "postinst fails"
    cp "$folder/said" "$folder/knock-shown"
    works /jffs

    test="another package manager: remove"
    for script in prerm postrm; do
        router "PKG_ROOT=/jffs /jffs/usr/lib/opkg/info/knockd-rs.$script remove" > "$folder/said" 2>&1 || lost "$script fails"
    done
    no_daemon || lost "a daemon runs"
    is_closed || lost "a door is still open"
}

test_sequences() {
    test="random sequences"
    jffs 4096
    cp files/share/door.sh files/etc/knockd.conf "$root/jffs/"
    # shellcheck disable=SC2016 # for the inner shell
    router 'cd /jffs; . ./door.sh; n=0; while [ $n -lt 150 ]; do
        cp knockd.conf config; make_door config config > /dev/null; grep "^sequence" config; n=$((n + 1)); done' \
        > "$folder/sequences"
    is "$(sort -u "$folder/sequences" | wc -l)" 150
    awk -F '[=,]' '
        NF != 6 { print "not five: " $0 }
        { tcp = udp = 0; sorted = 1; split("", seen)
          for (i = 2; i <= 6; i++) {
            udp += $i ~ /^ *[0-9]+:udp$/; tcp += $i ~ /^ *[0-9]+$/
            port = $i + 0
            if (port < 1024 || port > 65535 || port in seen) print "port: " $0
            seen[port] = 1
            if (i > 2 && port < last) sorted = 0
            last = port; sum += port }
          if (tcp + udp != 5 || !tcp || !udp || sorted) print "kind: " $0 }
        END { mean = sum / NR / 5 # about 33280; the deviation of such a mean is 680
          if (mean < 29000 || mean > 38000) print "mean: " mean }' "$folder/sequences" > "$folder/said"
    is "$(cat "$folder/said")" ""
}

test_reboot() {
    test="a boot, with both ways to start"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    reboot_router
    : > "$root/var/log/messages"
    router "/jffs/etc/config/knockd.startup; /jffs/.init; /jffs/etc/config/knockd.wanup; /jffs/etc/config/knockd.wanup"
    await "the hooks are done" no_hook
    await "one daemon runs" one_daemon
    works /jffs

    test="a boot with PPPoE that takes its time"
    reboot_router
    ip link del vlan1
    nvram wan_proto=pppoe wan_ifname=vlan1
    : > "$root/var/log/messages"
    before=$(date +%s)
    router /jffs/etc/config/knockd.startup
    [ $(($(date +%s) - before)) -le 1 ] || lost "the hook did not return at once"
    await "it starts before ppp0 is there" logged "started on ppp0"
    logged "could not open ppp0" || lost "it does not say that ppp0 is missing"
    link ppp0
    router /jffs/etc/config/knockd.wanup
    await "it listens on the new link" logged "ppp0: listening on ppp0 at"
    interface=ppp0
    works /jffs
    interface=
    reboot_router
    ip link del ppp0
    link vlan1

    test="a config that names its interface"
    : > "$root/var/log/messages"
    sed -i 's/^Interface = auto/interface =vlan1\r/' "$config"
    router /jffs/etc/config/knockd.startup
    await "the config wins" logged "started on vlan1"
    is "$(tr '\0' ' ' < "/proc/$(keeper)/cmdline")" "/jffs/usr/sbin/knockd -d -c /jffs/etc/knockd.conf "
    works /jffs
    reboot_router

    test="a config that was broken by hand"
    : > "$root/var/log/messages"
    echo nonsense >> "$config"
    router /jffs/etc/config/knockd.startup
    await "it says where" logged "unknown word 'nonsense'"
    no_daemon || lost "a daemon runs"

    test="a .init of the user's own"
    sed -i '$d' "$config"
    echo '# my own' > "$root/jffs/.init"
    ipkg -force-defaults install /packages/knockd-rs_1.0.0-1_all.ipk
    is "$(cat "$root/jffs/.init")" '# my own'
    await "one daemon runs" one_daemon
    ipkg remove knockd-rs
    is "$(cat "$root/jffs/.init")" '# my own'
}

# DD-WRT's images for ARM install into /opt and look only into its etc/init.d: S* at boot, *.wanup
# after a firewall restart.
test_opt() {
    test="below /opt"
    reboot_router
    mkdir "$root/opt"
    echo 'dest root /opt' > "$root/etc/ipkg.conf"
    first_install root /opt knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    reboot_router
    : > "$root/var/log/messages"
    # shellcheck disable=SC2016 # for the inner shell
    router 'for script in /opt/etc/init.d/S*; do "$script"; done' || lost "there is no script for a boot"
    await "one daemon runs" one_daemon
    await "it listens" logged "listening on vlan1"
    knock_as_shown
    await "the knock opens" is_open
    router iptables -F
    # shellcheck disable=SC2016
    router 'for script in /opt/etc/init.d/*.wanup; do "$script"; done' || lost "there is no script for the firewall"
    await "the rule is back" is_open
    ipkg install /packages/knockd-rs_1.0.0-2_all.ipk
    works /opt
    ipkg remove knockd-rs
    await "the daemon has ended" no_daemon
    nothing_left root /opt
    [ ! -e "$root/opt/etc" ] || lost "directories were left behind"
    rm -r "$root/opt" "$root/etc/ipkg.conf"
}

# The commands of docs/install.md for a flash without space for two copies.
one_copy() {
    sed -n '/^   p=.*ddwrt/,/^   ```/p' docs/install.md | sed '$d; s,^ *p=.*,p=/packages/'"$1"',; s,~,/jffs,g' > "$root/packages/one-copy"
    [ -s "$root/packages/one-copy" ] || lost "docs/install.md has no such commands"
    router sh /packages/one-copy > "$folder/said" 2>&1 || lost "the commands of docs/install.md fail"
}

test_one_copy() {
    test="one copy: install"
    jffs $(($(wc -c < "$knockd") / 1024 + 60))
    nvram wan_proto=dhcp wan_ifname=vlan1
    : > "$root/var/log/messages"
    refused install /packages/knockd-rs_1.0.0-1_all.ipk
    rm -rf "$root/jffs/tmp" "$root/jffs/jffs"
    one_copy knockd-rs_1.0.0-1_all.ipk
    cp "$folder/said" "$folder/knock-shown"
    config=$root/jffs/etc/knockd.conf
    is "$(stat -c %a "$config")" 600
    works /jffs

    test="one copy: upgrade"
    pid=$(daemon)
    echo '# mine' >> "$config"
    before=$(md5sum < "$config")
    : > "$root/var/log/messages"
    one_copy knockd-rs_1.0.0-2_all.ipk
    is "$(md5sum < "$config")" "$before"
    await "another daemon runs" another_daemon "$pid"
    works /jffs
}

# starts_on INTERFACE SETTING...: with these settings in nvram, whatever the config contains
starts_on() {
    test="a router with $(shift; echo "$*")"
    reboot_router
    expected=$1
    shift
    nvram "$@"
    : > "$root/var/log/messages"
    router /jffs/etc/config/knockd.startup
    await "it starts on $expected" logged "started on $expected with"
    await "one daemon runs" one_daemon
}

test_interfaces() {
    test="strange settings"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    starts_on auto
    starts_on vlan1 wan_proto=dhcp wan_ifname= wanface=vlan1
    starts_on vlan1 wan_proto=of_next_year wan_ifname=vlan1
    starts_on auto wan_proto=disabled wan_ifname=vlan1
    starts_on wwan0 wan_proto=3g wanface=wwan0
    starts_on ppp0 wan_proto=3g
    starts_on auto wan_proto=dhcp 'wan_ifname=vlan1; reboot'
    mv "$root/usr/sbin/nvram" "$root/usr/sbin/nvram.away"
    starts_on auto
    mv "$root/usr/sbin/nvram.away" "$root/usr/sbin/nvram"

    # The daemon uses the last of two, without surrounding white space. The hooks must do the same.
    sed -i 's/^Interface = auto/Interface = ppp7\nInterface = vlan1 \t\r\nPidFile = \/var\/run\/of-old\nPidFile = \/var\/run\/knockd.pid \r/' "$config"
    starts_on vlan1 wan_proto=pppoe
    works /jffs

    ip link add vlan2 type veth peer name eth1 netns "$wan"
    ip addr add 203.0.113.1/24 dev vlan2
    ip link set vlan2 up
    ip -n "$wan" addr add 203.0.113.2/24 dev eth1
    ip -n "$wan" link set eth1 up
    sed -i '/^Interface = ppp7/d; s/^Interface = .*/Interface = vlan1,vlan2/' "$config"
    starts_on vlan1,vlan2 wan_proto=dhcp wan_ifname=vlan1
    test="two WANs"
    works /jffs
    knock_as_shown 203.0.113.1
    await "a knock at the second opens" is_open_for 203.0.113.2
    ipkg remove knockd-rs
    ip link del vlan2
}

two_daemons() {
    # shellcheck disable=SC2046 # counts words
    set -- $(keepers)
    [ $# = 2 ]
}

test_two_trees() {
    test="a trial in RAM in addition to the one on flash"
    jffs 4096
    first_install ram /tmp knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "two daemons run" two_daemons
    await "it listens" logged "listening on vlan1"
    ipkg -d ram remove knockd-rs
    await "one of them has ended" is_one
    is "$(find "$root/tmp" ! -type d ! -name status)" ""
    knock_as_shown
    await "the knock opens" is_open
    # They shared a pid file.
    rm -f "$root/var/run/knockd.pid"
    router iptables -F
    router /jffs/etc/config/knockd.wanup
    await "the rule is back" is_open
    ipkg remove knockd-rs
}

# The installed daemon and its commands on a kernel without anything newer than 2.6.24. Only with
# musl, because the C library of this machine needs newer system calls.
test_old_kernel() {
    test="a kernel as old as 2.6.24"
    jffs 4096
    cc -O1 -Wall -static -o "$root/jffs/oldsys" tests/router/oldsys.c
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    reboot_router
    sed -i 's/^cmd_timeout .*/cmd_timeout = 5/' "$config"
    : > "$root/var/log/messages"
    router "/jffs/oldsys /jffs/usr/sbin/knockd -d -i vlan1 -c /jffs/etc/knockd.conf" > "$folder/said" 2>&1 || lost "no start"
    await "one daemon runs" one_daemon
    grep -q '^Seccomp:.*2' "/proc/$(daemon)/status" || lost "the daemon is not under oldsys"
    works /jffs
    await "the door closes" is_closed
    knock_as_shown
    await "it opens again" is_open

    test="a kernel as old as 2.6.24: reload, a listener that dies, a second daemon, the exit"
    : > "$root/var/log/messages"
    kill -HUP "$(daemon)"
    await "the config is read again" logged "configuration reloaded"
    await "the old listener has ended" one_listener
    kill -9 "$(listeners)"
    await "a new listener has started" logged "listener died, restarting it"
    router "/jffs/oldsys /jffs/usr/sbin/knockd -d -i vlan1 -c /jffs/etc/knockd.conf" > "$folder/said" 2>&1 \
        || lost "a second start is a failure"
    grep -q 'already runs' "$folder/said" || lost "the second start does not report the running daemon"
    await "one daemon runs" one_daemon
    await "the door closes" is_closed
    await "a knock opens" knock_until_open
    kill "$(daemon)"
    await "the daemon ends" no_daemon
    is_closed || lost "the end left a door open"
    ipkg remove knockd-rs
}

listeners() {
    pgrep -f '^knockd-listener'
}

one_listener() {
    [ "$(listeners | wc -l)" = 1 ]
}

# A reload ends attempts, so one knock may reach the old listener.
knock_until_open() {
    knock_as_shown
    is_open
}
