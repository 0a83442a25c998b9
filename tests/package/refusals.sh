# What must be refused, in one line that says why, and without harm to what is there. Each test is a function; sourced by
# scripts/test-package after steps.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh and steps.sh

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

# What is installed, without the package manager's own files and leftovers.
sum() {
    (cd "$root/jffs" && find usr/sbin usr/bin etc .init ! -type d -exec md5sum {} +)
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
    is "$(grep -c '^knockd-rs: ' "$folder/said")" 1
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    works /jffs
    before=$(sum) pid=$(daemon)
    refused install /packages/knockd-rs_1.0.0-3_mips.ipk
    is "$(sum)" "$before"
    await "the same daemon runs, alone" same_daemon "$pid"
    is_open || lost "the door was shut"
    nothing_staged /jffs
    ipkg remove knockd-rs
    nothing_left root /jffs
    rm "$root/packages/knockd-rs_1.0.0-3_mips.ipk"
}

test_broken_config() {
    test="an upgrade with a config that was broken by hand"
    jffs 4096
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    works /jffs
    echo nonsense >> "$config"
    before=$(sum) pid=$(daemon)
    refused install /packages/knockd-rs_1.0.0-2_all.ipk
    is "$(grep -c '^knockd-rs: ' "$folder/said")" 1
    nothing_staged /jffs
    grep -q "the config is wrong: /jffs/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say where"
    is "$(sum)" "$before"
    await "the same daemon runs, alone" same_daemon "$pid"
    is_open || lost "the door was shut"
    router iptables -F
    router /jffs/etc/config/knockd.wanup
    await "the daemon lives on, with what it has read" is_open

    test="the same where no daemon runs"
    reboot_router
    ipkg install /packages/knockd-rs_1.0.0-2_all.ipk
    grep -q "not started: the config is wrong: /jffs/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say where"
    no_daemon || lost "a daemon runs"
    sed -i '$d' "$config"
    router /jffs/etc/config/knockd.wanup

    test="a downgrade, with an open door"
    works /jffs
    pid=$(daemon)
    ipkg install /packages/knockd-rs_1.0.0-1_all.ipk
    await "another daemon runs" another_daemon "$pid"
    is_open && lost "a door of the old daemon is open"
    works /jffs
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
