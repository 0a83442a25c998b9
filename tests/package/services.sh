# The start scripts of OpenWrt and Entware. Each test is a function; sourced by scripts/test-package after steps.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh and steps.sh

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

    test="OpenWrt's start script, with a config that names its interface"
    sed -i 's/^Interface = auto/interface = vlan1/' "$config"
    router /etc/init.d/knockd start
    is "$(cat "$root/var/run/command")" "/usr/sbin/knockd -c /etc/knockd.conf"
    router /etc/init.d/knockd stop
    await "the daemon ends" no_daemon
    sed -i 's/^interface = vlan1/Interface = auto/' "$config"

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
