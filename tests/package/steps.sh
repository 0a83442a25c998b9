# Steps and checks that several test files use, on the router of root.sh. Sourced by
# scripts/test-package.
# shellcheck shell=sh disable=SC2154,SC2034,SC2119,SC2120 # shared with root.sh and the tests

sequence_of() {
    sed -n 's/^sequence *= *//p' "$root$1/etc/knockd.conf"
}

# Sends the printed knock command from the Internet.
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

shown_alone() {
    is_one && [ "$(router pidof knockd)" = "$only" ]
}

# Checks for a daemon on vlan1 that opens after the printed knock, and opens again when the firewall
# was flushed. Ends with an open door.
works() { # works TREE
    await "one daemon runs" one_daemon
    await "it listens" logged "listening on ${interface:-vlan1}"
    await "busybox's pidof shows the daemon alone" shown_alone
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
        *"warning: "*) lost "the config is unwise: $advice" ;;
    esac
}

nothing_left() { # nothing_left DESTINATION TREE [FILE]
    [ -e "$root/var/run/knockd" ] && lost "/var/run/knockd was left behind"
    left=$(find "$root$2" ! -type d | sed "s,^$root,," | grep -v "^$2/jffs/usr/lib/ipkg/status$" || :)
    is "$left" "${3:-}"
}

# Prints what the package manager has recorded about the config, in the tree of a destination.
noted() { # noted TREE
    sed -n 's,^Conffiles:.* /etc/knockd.conf ,,p' "$root$1/jffs/usr/lib/ipkg/status"
}

# Checks that an installation, successful or not, leaves no temporary files.
nothing_staged() { # nothing_staged TREE
    is "$(find "$root$1/tmp/ipkg" ! -type d; ls "$root$1"/jffs/usr/lib/ipkg/info/*.control "$root$1"/jffs/usr/lib/ipkg/info/*inst 2> /dev/null)" ""
    is "$(find "$root$1" -maxdepth 1 -name '.knockd*')" ""
}

another_daemon() {
    one_daemon && [ "$(daemon)" != "$1" ]
}

no_hook() {
    ! pgrep -f knockd.startup > /dev/null
}
