# What a package must do, each a function; sourced by scripts/test-package after root.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh

sequence_of() {
    sed -n 's/^sequence *= *//p' "$root$1/etc/knockd.conf"
}

# The knock command as it was shown, sent from the Internet.
knock_as_shown() { # knock_as_shown [ADDRESS OF THE ROUTER]
    words=$(sed -n 's/^ *knock ROUTER \([0-9a-z: ]*\) && ssh .*/\1/p' "$folder/knock-shown")
    [ -n "$words" ] || lost "no knock command was shown"
    # shellcheck disable=SC2086 # a list of steps
    ip netns exec "$wan" "$folder/knock" -d 20 "${1:-198.51.100.1}" $words
}

is_open() {
    is_open_for 198.51.100.2
}

is_open_for() {
    router iptables -S INPUT | grep -q -- "-s $1/32 -p tcp .*--dport 22 -j ACCEPT"
}

is_closed() {
    ! is_open
}

# A daemon on vlan1 that opens for the knock that was shown, and opens again when the firewall was flushed. Ends with an open door.
works() { # works TREE
    await "one daemon runs" one_daemon
    await "it listens" logged "listening on ${interface:-vlan1}"
    is_open && lost "open before the knock"
    knock_as_shown
    await "the knock opens" is_open
    router iptables -F
    is_closed || lost "the flush left a rule"
    router "$1/etc/config/knockd.wanup"
    await "the rule is back" is_open
}

first_install() { # first_install DESTINATION TREE FILE
    nvram wan_proto=dhcp wan_ifname=vlan1
    : > "$root/var/log/messages"
    ipkg -d "$1" install "/packages/$3"
    cp "$folder/said" "$folder/knock-shown"
    config=$root$2/etc/knockd.conf
    is "$(stat -c %a "$config")" 600
    sequence=$(sequence_of "$2")
    shown=$(sed -n 's/^ *knock ROUTER \([0-9a-z: ]*\) && ssh .*/\1/p' "$folder/said")
    is "$(echo "$shown" | tr ' ' ,)" "$sequence"
    advice=$(router "$2/usr/sbin/knockd --check -c $2/etc/knockd.conf" 2>&1) || lost "the config is wrong: $advice"
    case $advice in
        *warning*) lost "the config is unwise: $advice" ;;
    esac
}

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
    grep -q 'already runs' "$folder/said" || lost "the second start does not say that one runs"
    await "the hooks are done" no_hook
    await "the same daemon runs, alone" same_daemon "$pid"

    test="$1, $3: reinstall"
    sequence=$(sequence_of "$tree")
    ipkg -d "$1" install "/packages/$3"
    is "$(sequence_of "$tree")" "$sequence"
    grep -q 'knock ROUTER' "$folder/said" && lost "the knock was shown again"
    await "another daemon runs" another_daemon "$pid"
    is_open && lost "a door of the old daemon is open"
    works "$tree"

    test="$1, $3: upgrade with a changed config"
    pid=$(daemon)
    echo '# mine' >> "$config"
    ipkg -d "$1" -force-defaults install "/packages/$4"
    is "$(tail -n 1 "$config")" "# mine"
    is "$(sequence_of "$tree")" "$sequence"
    await "another daemon runs" another_daemon "$pid"
    works "$tree"

    test="$1, $3: remove, with a changed config"
    ipkg -d "$1" remove knockd-rs
    await "the daemon has ended" no_daemon
    is_open && lost "a door is still open"
    nothing_left "$1" "$tree" "$tree/etc/knockd.conf"

    test="$1, $3: install over the config of before"
    ipkg -d "$1" -force-defaults install "/packages/$3"
    is "$(sequence_of "$tree")" "$sequence"
    grep -q 'knock ROUTER' "$folder/said" && lost "a new door was made"
    await "one daemon runs" one_daemon
    ipkg -d "$1" remove knockd-rs
    rm -f "$config"

    test="$1, $3: install and remove, nothing is left"
    before=$sequence
    first_install "$1" "$tree" "$3"
    [ "$sequence" != "$before" ] || lost "the same sequence was made twice"
    await "one daemon runs" one_daemon
    ipkg -d "$1" remove knockd-rs
    nothing_left "$1" "$tree"
}

no_hook() {
    ! pgrep -f knockd.startup > /dev/null
}

another_daemon() {
    one_daemon && [ "$(daemon)" != "$1" ]
}

nothing_left() { # nothing_left DESTINATION TREE [FILE]
    [ -e "$root/var/run/knockd" ] && lost "/var/run/knockd is left"
    left=$(find "$root$2" ! -type d | sed "s,^$root,," | grep -v "^$2/jffs/usr/lib/ipkg/status$" || :)
    is "$left" "${3:-}"
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

# Some clients note the checksum of the config only after postinst.
test_late_records() {
    records=late
    test="a client that notes checksums late"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    sequence=$(sequence_of /jffs)
    ipkg install /packages/knockd-rs_1.0.0-2_all.ipk
    is "$(sequence_of /jffs)" "$sequence"
    ipkg remove knockd-rs
    nothing_left root /jffs
    records=
}

test_question() {
    test="an upgrade that stops at the question about the config"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    echo '# mine' >> "$config"
    refused install /packages/knockd-rs_1.0.0-2_all.ipk
    count=0
    until one_daemon; do # the guard of preinst waits half a minute
        count=$((count + 1))
        [ "$count" -lt 60 ] || lost "the daemon does not come back"
        sleep 1
    done
    works /jffs
    ipkg remove knockd-rs
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
    await "it hears on the new link" logged "ppp0: listening on ppp0 at"
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

# starts_on INTERFACE SETTING...: with these settings in nvram, and whatever the config says
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

    # The daemon takes the last of two, without blanks around it; so must the hooks.
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

test_other_cpu() {
    test="a package for another CPU"
    cp "$knockd" "$folder/other"
    printf '\010' | dd of="$folder/other" bs=1 seek=18 conv=notrunc 2> /dev/null # e_machine: MIPS
    ours=$knockd
    knockd=$folder/other
    pack 1.0.0-3 "$root/packages/knockd-rs_1.0.0-3_mips.ipk"
    knockd=$ours
    jffs 4096
    refused install /packages/knockd-rs_1.0.0-3_mips.ipk
    grep -q 'take the package for the CPU of this router' "$folder/said" || lost "it does not say why"
    is "$(find "$root/jffs" ! -type d)" ""
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    works /jffs
    before=$(sum) pid=$(daemon)
    refused install /packages/knockd-rs_1.0.0-3_mips.ipk
    is "$(sum)" "$before"
    await "the same daemon runs, alone" same_daemon "$pid"
    is_open || lost "the door was shut"
    ipkg remove knockd-rs
    rm "$root/packages/knockd-rs_1.0.0-3_mips.ipk"
}

test_broken_config() {
    test="an upgrade with a config that was broken by hand"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    works /jffs
    echo nonsense >> "$config"
    before=$(sum) pid=$(daemon)
    refused -force-defaults install /packages/knockd-rs_1.0.0-2_all.ipk
    grep -q "the config is wrong: /jffs/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say where"
    is "$(sum)" "$before"
    await "the same daemon runs, alone" same_daemon "$pid"
    is_open || lost "the door was shut"
    router iptables -F
    router /jffs/etc/config/knockd.wanup
    await "the daemon lives on, with what it has read" is_open

    test="the same where no daemon runs"
    reboot_router
    ipkg -force-defaults install /packages/knockd-rs_1.0.0-2_all.ipk
    grep -q "not started: the config is wrong: /jffs/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say where"
    no_daemon || lost "a daemon runs"
    sed -i '$d' "$config"
    router /jffs/etc/config/knockd.wanup

    test="a downgrade, with an open door"
    works /jffs
    pid=$(daemon)
    ipkg -force-defaults install /packages/knockd-rs_1.0.0-1_all.ipk
    await "another daemon runs" another_daemon "$pid"
    is_open && lost "a door of the old daemon is open"
    works /jffs
    ipkg remove knockd-rs
}

two_daemons() {
    # shellcheck disable=SC2046 # counts words
    set -- $(keepers)
    [ $# = 2 ]
}

one_keeper() {
    # shellcheck disable=SC2046 # counts words
    set -- $(keepers)
    [ $# = 1 ]
}

test_two_trees() {
    test="on trial in RAM beside the one on flash"
    jffs 4096
    first_install ram /tmp knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "two daemons run" two_daemons
    await "it listens" logged "listening on vlan1"
    ipkg -d ram remove knockd-rs
    await "one of them has ended" one_keeper
    is "$(find "$root/tmp" ! -type d ! -name status)" ""
    knock_as_shown
    await "the knock opens" is_open
    # They had the same pid file.
    rm -f "$root/var/run/knockd.pid"
    router iptables -F
    router /jffs/etc/config/knockd.wanup
    await "the rule is back" is_open
    ipkg remove knockd-rs
}

test_full_flash() {
    test="a flash that is read-only"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    works /jffs
    await "the hooks are done" no_hook
    mount -o remount,ro "$root/jffs"
    refused install /packages/knockd-rs_1.0.0-2_all.ipk
    grep -qi 'read-only' "$folder/said" || lost "it does not say why"
    await "one daemon runs" one_daemon
    reboot_router
    : > "$root/var/log/messages"
    router /jffs/etc/config/knockd.startup
    works /jffs
    refused remove knockd-rs
    grep -q 'not removed: /jffs/ is read-only' "$folder/said" || lost "it does not say why"
    await "one daemon runs" one_daemon
    is_open || lost "the door was shut"
    mount -o remount,rw "$root/jffs"

    test="a flash that is full"
    before=$(sum)
    pid=$(daemon)
    used=$(du -sk "$root/jffs" | cut -f 1)
    used_up=0 done_up=0
    room=0
    step=${step:-48}
    while [ "$done_up" -lt 2 ]; do
        mount -o "remount,size=$((used + room))k" "$root/jffs"
        if router "ipkg install /packages/knockd-rs_1.0.0-2_all.ipk" > "$folder/said" 2>&1; then
            done_up=$((done_up + 1))
            await "the new daemon runs" another_daemon "$pid"
            pid=$(daemon)
        else
            [ "$done_up" = 0 ] || lost "with $room kB it fails, with less it did not"
            used_up=$((used_up + 1))
            is "$(sum)" "$before"
            await "the same daemon runs, alone" same_daemon "$pid"
            is "$(wc -l < "$folder/said")" "$(grep -c '^tar: \|^ipkg: \|^knockd-rs: ' "$folder/said")"
        fi
        room=$((room + step))
    done
    [ "$used_up" -gt 2 ] || lost "it never was full"
    say "    $used_up sizes too small, enough with $((room - 2 * step)) kB"
    mount -o remount,size=4096k "$root/jffs"
    ipkg remove knockd-rs
    nothing_left root /jffs

    test="a first install on a full flash"
    jffs 100
    refused install /packages/knockd-rs_1.0.0-1_all.ipk
    no_daemon || lost "a daemon runs"
    jffs 4096
    nvram
    sed -i 's/sys_enable_jffs2=1/sys_enable_jffs2=0/' "$root/etc/nvram"
    refused install /packages/knockd-rs_1.0.0-1_all.ipk
}

# What is installed, without the package manager's own files and leftovers.
sum() {
    (cd "$root/jffs" && find usr/sbin usr/bin etc .init ! -type d -exec md5sum {} +)
}

test_sequences() {
    test="sequences by chance"
    jffs 4096
    cp ipkg/postinst "$root/jffs/postinst"
    cp files/etc/knockd.conf "$root/jffs/shipped"
    # shellcheck disable=SC2016 # for the inner shell
    router 'cd /jffs; n=0; while [ $n -lt 150 ]; do
        cp shipped config; sh postinst make-door config config > /dev/null; grep "^sequence" config; n=$((n + 1)); done' \
        > "$folder/sequences"
    is "$(sort -u "$folder/sequences" | wc -l)" 150
    awk -F '[=,]' '
        NF != 5 { print "not four: " $0 }
        { tcp = udp = 0; sorted = 1; split("", seen)
          for (i = 2; i <= 5; i++) {
            udp += $i ~ /^ *[0-9]+:udp$/; tcp += $i ~ /^ *[0-9]+$/
            port = $i + 0
            if (port < 1024 || port > 65535 || port in seen) print "port: " $0
            seen[port] = 1
            if (i > 2 && port < last) sorted = 0
            last = port; sum += port }
          if (tcp + udp != 4 || !tcp || !udp || sorted) print "kind: " $0 }
        END { mean = sum / NR / 4 # about 33280; the deviation of such a mean is 760
          if (mean < 29000 || mean > 38000) print "mean: " mean }' "$folder/sequences" > "$folder/said"
    is "$(cat "$folder/said")" ""
}

# The program and a config with one door at the top of the router, below PREFIX, as OpenWrt's or Entware's package puts them.
plain_install() { # plain_install PREFIX
    reboot_router
    mkdir -p "$root$1/etc/init.d" "$root$1/usr/sbin"
    cp "$knockd" "$root$1/usr/sbin/knockd"
    config=$root$1/etc/knockd.conf
    cp files/etc/knockd.conf "$config"
    router "sh /host$PWD/ipkg/postinst make-door $1/etc/knockd.conf $1/etc/knockd.conf" > "$folder/knock-shown"
    : > "$root/var/log/messages"
}

service_knocks() {
    await "it listens on the WAN" logged "listening on vlan1"
    knock_as_shown
    await "the knock opens" is_open
}

# The start script of OpenWrt, with stand-ins for what OpenWrt has: they show which command it hands to procd, and run that. Whether
# procd starts it again, and when, is procd's and not shown.
test_openwrt() {
    test="OpenWrt's start script"
    plain_install ""
    cp files/openwrt/etc/init.d/knockd "$root/etc/init.d/knockd"
    rm "$root/lib"
    mkdir -p "$root/lib/functions"
    for entry in /lib/*; do
        ln -s "/host$entry" "$root/lib/"
    done
    cat > "$root/lib/functions/network.sh" << 'END'
network_find_wan() { eval "$1=\$(nvram get network)"; [ -n "$(nvram get network)" ]; }
network_get_device() { [ "$2" = wan ] && eval "$1=vlan1"; }
END
    cat > "$root/etc/rc.common" << 'END'
procd_open_instance() { command=''; }
procd_set_param() { [ "$1" != command ] || { shift; command=$*; }; }
procd_close_instance() { echo "$command" > /var/run/command; $command < /dev/null > /dev/null 2>&1 & echo $! > /var/run/instance; }
procd_send_signal() { [ "$1 $2" = "knockd *" ] && kill "-$3" "$(cat /var/run/instance)"; }
procd_add_reload_interface_trigger() { echo "$1" > /var/run/trigger; }
script=$1
. "$script"
case $2 in
    start) service_triggers; start_service ;;
    stop) kill "$(cat /var/run/instance)" ;;
    reload) reload_service ;;
esac
END
    nvram network=wan
    router /etc/init.d/knockd start
    is "$(cat "$root/var/run/command")" "/usr/sbin/knockd -i vlan1 -c /etc/knockd.conf"
    is "$(cat "$root/var/run/trigger")" wan
    service_knocks
    router /etc/init.d/knockd reload
    await "the config is read again" logged "the new config is in force"
    is_open || lost "the reload shut the door"
    router /etc/init.d/knockd stop
    await "the daemon ends" no_daemon
    is_closed || lost "a door is still open"

    test="OpenWrt's start script, before there is a WAN"
    nvram
    router /etc/init.d/knockd start
    is "$(cat "$root/var/run/command")" "/usr/sbin/knockd -c /etc/knockd.conf"
    router /etc/init.d/knockd stop
    await "the daemon ends" no_daemon
    rm -r "${root:?}/lib" "$root/etc/init.d" "$root/etc/rc.common" "$root/usr/sbin/knockd" "$config"
    ln -s host/lib "$root/lib"
}

# The start script of Entware, with a stand-in for its rc.func.
test_entware() {
    test="Entware's start script"
    plain_install /opt
    mkdir "$root/opt/sbin"
    ln -s ../usr/sbin/knockd "$root/opt/sbin/knockd"
    cp files/entware/opt/etc/init.d/S95knockd "$root/opt/etc/init.d/"
    cat > "$root/opt/etc/init.d/rc.func" << 'END'
[ "$ENABLED" = yes ] || exit
case $1 in
    start) [ -n "$(pidof "$PROCS")" ] || $PREARGS "$PROCS" $ARGS ;;
    stop) killall "$PROCS" ;;
    reconfigure) killall -HUP "$PROCS" ;;
esac
END
    ip route add default via 198.51.100.2
    router /opt/etc/init.d/S95knockd start
    await "one daemon runs" one_daemon
    service_knocks
    router /opt/etc/init.d/S95knockd start
    await "one daemon runs" one_daemon
    router /opt/etc/init.d/S95knockd reconfigure
    await "the config is read again" logged "the new config is in force"
    is_open || lost "the reload shut the door"
    router /opt/etc/init.d/S95knockd stop
    await "the daemon ends" no_daemon
    is_closed || lost "a door is still open"
    ip route del default
    rm -r "$root/opt"
}

# refuses_with TEXT COMMAND...: it fails and says so in one line
refuses_with() {
    text=$1
    shift
    if "$@" > "$folder/said" 2>&1; then
        lost "it succeeds: $*"
    fi
    is "$(grep -c . "$folder/said")" 1
    grep -qF -- "$text" "$folder/said" || lost "$* says something else"
}

# What scripts/build-ipk and its helpers say where something is wrong. Here is no network.
test_build() {
    test="building what cannot be built"
    refuses_with 'unknown architecture "sparc"; use one of: mipsel' scripts/build-ipk sparc
    refuses_with 'unknown system "tomato"; use ddwrt, openwrt or entware' scripts/build-ipk --for tomato mipsel
    refuses_with 'OPKG_ARCH names one architecture' env OPKG_ARCH=all scripts/build-ipk mipsel armv5
    refuses_with 'is no name of an architecture' env OPKG_ARCH='a b' scripts/build-ipk mipsel
    refuses_with 'name a router (usage' scripts/test-router
    refuses_with "Debian's kernel is here for mipsel only" scripts/test-router arm --debian-kernel
    refuses_with 'no such file: none.ipk' scripts/test-package none.ipk
    refuses_with 'unknown architecture "sparc"' tests/package/binaries sparc
    refuses_with 'there is no folder' scripts/build-feed "$folder/none"
    mkdir "$folder/few"
    for program in dirname sed head; do
        ln -s "$(command -v "$program")" "$folder/few/"
    done
    refuses_with 'are missing, and there is no apt-get to install them: clang lld' env PATH="$folder/few" /bin/sh scripts/build-ipk mipsel
    if cross/fetch-source musl "$folder/musl" > "$folder/said" 2>&1; then
        lost "the source of musl came without a network"
    fi
    tail -n 1 "$folder/said" | grep -q 'is there a network' || lost "it does not say that there is no network"
    [ ! -e "$folder/musl" ] || lost "half a source is left"
}

# The installed daemon and its commands, where the kernel has nothing that 2.6.24 lacks. Only with musl: the C library of this
# machine itself needs calls that are newer.
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

    test="a kernel as old as 2.6.24: reload, a listener that dies, a second daemon, the end"
    : > "$root/var/log/messages"
    kill -HUP "$(daemon)"
    await "the config is read again" logged "the new config is in force"
    await "the old listener has ended" one_listener
    kill -9 "$(listeners)"
    await "there is another listener" logged "the listener has died: starting it again"
    router "/jffs/oldsys /jffs/usr/sbin/knockd -d -i vlan1 -c /jffs/etc/knockd.conf" > "$folder/said" 2>&1 \
        || lost "a second start is a failure"
    grep -q 'already runs' "$folder/said" || lost "the second start does not say that one runs"
    await "one daemon runs" one_daemon
    await "the door closes" is_closed
    await "a knock opens" knock_until_open
    kill "$(daemon)"
    await "the daemon ends" no_daemon
    is_closed || lost "the end left a door open"
    ipkg remove knockd-rs
}

listeners() {
    pgrep -f '^knockd: listener'
}

one_listener() {
    [ "$(listeners | wc -l)" = 1 ]
}

# A reload ends attempts, so one knock may meet the listener that goes.
knock_until_open() {
    knock_as_shown
    is_open
}
