# Cases that must be refused with one line that says why, and without damage. Each test is a
# function. Sourced by scripts/test-package after steps.sh.
# shellcheck shell=sh disable=SC2154,SC2034 # shared with root.sh and steps.sh

# refuses_with TEXT COMMAND...: the command fails with one line that contains TEXT
refuses_with() {
    text=$1
    shift
    if "$@" > "$folder/said" 2>&1; then
        lost "it succeeds: $*"
    fi
    is "$(grep -c . "$folder/said")" 1
    grep -qF -- "$text" "$folder/said" || lost "$* says something else"
}

# Errors of scripts/build-ipk and its helpers. There is no network here.
test_build() {
    test="building what cannot be built"
    refuses_with 'unknown architecture "sparc"; use one of: mipsel' scripts/build-ipk sparc
    refuses_with 'unknown system "tomato"; use ddwrt, openwrt, openwrt-apk or entware' scripts/build-ipk --for tomato mipsel
    refuses_with 'OPKG_ARCH needs exactly one ARCH' env OPKG_ARCH=all scripts/build-ipk mipsel armv5
    refuses_with 'PROGRAM needs exactly one ARCH' env PROGRAM=/bin/true scripts/build-ipk mipsel armv5
    refuses_with 'invalid OPKG_ARCH=a b; use letters' env OPKG_ARCH='a b' scripts/build-ipk mipsel
    refuses_with 'needs a router: mipsel or arm (usage' scripts/test-router
    refuses_with '--debian-kernel works only with mipsel' scripts/test-router arm --debian-kernel
    refuses_with 'no such file: none.ipk' scripts/test-package none.ipk
    refuses_with 'unknown architecture "sparc"' tests/package/binaries sparc
    refuses_with 'no such directory' scripts/build-feed "$folder/none"
    mkdir "$folder/few"
    for program in dirname sed head; do
        ln -s "$(command -v "$program")" "$folder/few/"
    done
    refuses_with 'are missing, and there is no apt-get to install them: clang lld' env PATH="$folder/few" /bin/sh scripts/build-ipk mipsel
    if cross/fetch-source musl "$folder/musl" > "$folder/said" 2>&1; then
        lost "the source of musl came without a network"
    fi
    tail -n 1 "$folder/said" | grep -q 'check the network connection' || lost "it does not say that there is no network"
    [ ! -e "$folder/musl" ] || lost "half a source was left behind"
}

test_release() {
    test="a release of what is no commit, or of another version than its tag"
    refuses_with 'unknown architecture "sparc"' scripts/release sparc
    refuses_with 'is not empty' scripts/release --into /
    clone=$folder/clone
    mkdir "$clone"
    cp -r scripts cross Cargo.toml "$clone"
    refuses_with 'not a git clone' "$clone/scripts/release"
    git -C "$clone" init -q
    refuses_with 'the tree has changes' "$clone/scripts/release"
    git -C "$clone" add .
    git -C "$clone" -c user.name=test -c user.email=test@test commit -qm test
    git -C "$clone" tag v99.0
    refuses_with 'the tag v99.0 does not match the version in Cargo.toml' "$clone/scripts/release"
}

# Prints the architecture in a package.
architecture() { # architecture FILE
    tar -xzOf "$1" ./control.tar.gz | tar -xzOf - ./control | sed -n 's/^Architecture: //p'
}

test_feed() {
    test="a feed of one architecture"
    feed=$folder/feed
    mkdir "$feed"
    pack 1.0.0-1 "$feed/knockd-rs_1.0.0-1_ddwrt-mips.ipk" ddwrt-mips
    scripts/build-feed "$feed" > "$folder/said" 2>&1 || lost "build-feed failed"
    is "$(sed -n 's/^Filename: //p' "$feed/Packages")" knockd-rs_1.0.0-1_ddwrt-mips.ipk

    test="a feed of two architectures"
    pack 1.0.0-1 "$feed/knockd-rs_1.0.0-1_ddwrt-armv5.ipk" ddwrt-armv5
    scripts/build-feed "$feed" > "$folder/said" 2>&1 || lost "build-feed failed"
    [ ! -e "$feed/Packages" ] || lost "there is a feed of both"
    for arch in ddwrt-mips ddwrt-armv5; do
        is "$(sed -n 's/^Filename: //p' "$feed/$arch/Packages")" "knockd-rs_1.0.0-1_$arch.ipk"
        is "$(architecture "$feed/$arch/knockd-rs_1.0.0-1_$arch.ipk")" "$arch"
    done

    test="a signed feed"
    rm -r "$feed"/*ddwrt-armv5*
    : > "$folder/key"
    refuses_with 'no such key' scripts/build-feed --key "$folder/no-key" "$feed"
    refuses_with "needs OpenWrt's usign" scripts/build-feed --key "$folder/key" "$feed"
    # A stand-in for usign: checks the arguments that the real one gets here and writes the same
    # format.
    mkdir "$folder/bin"
    cat > "$folder/bin/usign" << 'END'
#!/bin/sh
[ $# = 7 ] && [ "$1 $2 $4 $6" = "-S -m -s -x" ] && [ -f "$3" ] && [ -f "$5" ] || exit 1
printf 'untrusted comment: signed by key 0\n%s\n' "$(md5sum < "$3")" > "$7"
END
    chmod 755 "$folder/bin/usign"
    PATH=$folder/bin:$PATH scripts/build-feed --key "$folder/key" "$feed" > "$folder/said" 2>&1 || lost "build-feed does not sign"
    is "$(sed -n 2p "$feed/Packages.sig")" "$(md5sum < "$feed/Packages")"
    test="a feed that is signed no longer"
    scripts/build-feed "$feed" > "$folder/said" 2>&1 || lost "build-feed failed"
    [ ! -e "$feed/Packages.sig" ] || lost "an old signature was left behind"

    if [ -n "$ipk" ]; then
        test="the name of the architecture"
        is "$(architecture "$ipk")" "ddwrt-$(uname -m)"
    fi
}

# The installed files, without the package manager's own files and leftovers.
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
    grep -q 'use the package for this CPU' "$folder/said" || lost "it does not say why"
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
    grep -q "not installed: invalid config: /jffs/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say where"
    is "$(sum)" "$before"
    await "the same daemon runs, alone" same_daemon "$pid"
    is_open || lost "the door was shut"
    router iptables -F
    router /jffs/etc/config/knockd.wanup
    await "the daemon lives on, with what it has read" is_open

    test="the same where no daemon runs"
    reboot_router
    ipkg install /packages/knockd-rs_1.0.0-2_all.ipk
    grep -q "not started: invalid config: /jffs/etc/knockd.conf:.*'nonsense'" "$folder/said" || lost "it does not say where"
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
    [ "$used_up" -gt 2 ] || lost "the flash was never full"
    say "    $used_up sizes too small, enough with $((room - 2 * step)) kB"
    mount -o remount,size=4096k "$root/jffs"
    ipkg remove knockd-rs
    nothing_left root /jffs

    test="a first install on a small flash"
    program=$(($(wc -c < "$knockd") / 1024))
    refusals=0 installations=0
    room=$((program - 30))
    while [ "$room" -lt $((2 * program + 160)) ]; do
        jffs "$room"
        if router "ipkg install /packages/knockd-rs_1.0.0-1_all.ipk" > "$folder/said" 2>&1; then
            installations=$((installations + 1))
            await "one daemon runs" one_daemon
            ipkg remove knockd-rs
            nothing_left root /jffs
        else
            [ "$installations" = 0 ] || lost "with $room kB it fails, with less it did not"
            is "$(find "$root/jffs/usr/sbin" "$root/jffs/etc" ! -type d 2> /dev/null)" ""
            # Without space for one copy, the package manager fails before it runs the package's
            # script.
            if ! grep -q '^tar: ' "$folder/said"; then
                refusals=$((refusals + 1))
                is "$(grep -c '^knockd-rs: not installed: not enough space in /jffs/: needs ' "$folder/said")" 1
                nothing_staged /jffs
            fi
        fi
        room=$((room + step))
    done
    [ "$refusals" -gt 2 ] || lost "the script of the package never ran"
    [ "$installations" -gt 0 ] || lost "the package fits into no size"

    test="an upgrade on a flash that holds two copies and 120 kB" # x86_64: 700 kB
    jffs $((2 * program + 200))
    first_install root /jffs knockd-rs_1.0.0-1_all.ipk
    await "one daemon runs" one_daemon
    pid=$(daemon)
    mount -o "remount,size=$((2 * program + 120))k" "$root/jffs"
    ipkg install /packages/knockd-rs_1.0.0-2_all.ipk
    await "another daemon runs" another_daemon "$pid"
    works /jffs
    ipkg remove knockd-rs

    test="JFFS2 is switched off"
    jffs 4096
    nvram
    sed -i 's/sys_enable_jffs2=1/sys_enable_jffs2=0/' "$root/etc/nvram"
    refused install /packages/knockd-rs_1.0.0-1_all.ipk
}

# During a trial in RAM: /tmp is world-writable.
test_planted_links() {
    reboot_router
    nvram wan_proto=dhcp wan_ifname=vlan1
    echo precious > "$root/etc/victim"
    chmod 666 "$root/etc/victim"
    for name in .knockd-room .knockd-trial .init knockd.conf.new; do
        test="a link /tmp/$name"
        ln -s /etc/victim "$root/tmp/$name"
        router "ipkg -d ram install /packages/knockd-rs_1.0.0-1_all.ipk" > "$folder/said" 2>&1 || :
        router "ipkg -d ram remove knockd-rs" > "$folder/said" 2>&1 || :
        is "$(cat "$root/etc/victim")" precious
        is "$(stat -c %a "$root/tmp")" 1777
        reboot_router
    done
    for name in usr etc; do
        test="a link /tmp/$name"
        mkdir "$root/tmp/elsewhere"
        ln -s elsewhere "$root/tmp/$name"
        refused -d ram install /packages/knockd-rs_1.0.0-1_all.ipk
        is "$(grep -c "^knockd-rs: not installed: /tmp/$name is a link" "$folder/said")" 1
        is "$(find "$root/tmp/elsewhere" ! -type d)" ""
        reboot_router
    done
    test="a config that another user made"
    mkdir "$root/tmp/etc"
    cp files/etc/knockd.conf "$root/tmp/etc/knockd.conf"
    chown 1000 "$root/tmp/etc/knockd.conf"
    refused -d ram install /packages/knockd-rs_1.0.0-1_all.ipk
    is "$(grep -c "^knockd-rs: not installed: /tmp/etc/knockd.conf is a link or belongs to another user" "$folder/said")" 1
    no_daemon || lost "a daemon runs"
    reboot_router
    rm "$root/etc/victim"
}

# If no random sequence can be generated, the installation succeeds and reports that it created no
# door.
test_no_random_numbers() {
    mv "$root/dev/urandom" "$root/dev/true-urandom"
    for kind in nothing nines; do
        test="/dev/urandom gives $kind"
        jffs 4096
        nvram wan_proto=dhcp wan_ifname=vlan1
        case $kind in
            nothing) ln -s null "$root/dev/urandom" ;;
            nines) head -c 4096 /dev/zero | tr '\0' 9 > "$root/dev/urandom" ;;
        esac
        timeout 20 chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/sbin:/bin:/sbin \
            ipkg install /packages/knockd-rs_1.0.0-1_all.ipk > "$folder/said" 2>&1 < /dev/null || lost "it does not end, or fails"
        is "$(grep -c '^knockd-rs: created no door: ' "$folder/said")" 1
        is "$(sequence_of /jffs)" ""
        rm "$root/dev/urandom"
    done
    mv "$root/dev/true-urandom" "$root/dev/urandom"
}

# Every user can see the arguments of all processes.
test_secret() {
    test="the sequence in the arguments of a process"
    cp files/etc/knockd.conf "$folder/secret.conf"
    strace -f -qq -s 1000 -e trace=execve -o "$folder/calls" sh ipkg/postinst make-door "$folder/secret.conf" knockd.conf > "$folder/said" \
        || lost "no door was made"
    grep -q execve "$folder/calls" || lost "nothing was seen"
    for port in $(sed -n 's/^sequence *= *//p' "$folder/secret.conf" | tr ',' ' '); do
        ! grep -q "[^0-9]${port%:*}[^0-9]" "$folder/calls" || lost "a process had $port in its arguments: $(cat "$folder/calls")"
    done

    test="an error that quotes the config in the arguments of a process"
    mkdir -p "$folder/tree/usr/sbin" "$folder/tree/etc/config"
    cp "$knockd" "$folder/tree/usr/sbin/knockd"
    cp files/etc/config/knockd.startup "$folder/tree/etc/config/"
    printf '[SSH]\nsequence = 1234,987654\ncommand = true\n' > "$folder/tree/etc/knockd.conf"
    "$knockd" --check -c "$folder/tree/etc/knockd.conf" 2>&1 | grep -q 987654 || lost "the error does not quote it"
    strace -f -qq -s 1000 -e trace=execve -o "$folder/calls" sh "$folder/tree/etc/config/knockd.startup" > "$folder/said" 2>&1
    grep -q logger "$folder/calls" || lost "nothing was logged"
    ! grep -q 987654 "$folder/calls" || lost "a process had it in its arguments: $(cat "$folder/calls")"
}
