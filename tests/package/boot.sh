#!/bin/sh
# Boots the Debian system in ROOT, a mount point, with its own systemd. Run it in new pid, mount,
# ipc, uts, cgroup and network namespaces:
#     boot.sh ROOT CONSOLE
set -eu
root=$1 console=$2

mount --make-rprivate /
umount -l "$root/proc" "$root/dev" "$root/run"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/before"
ln -s pts/ptmx "$root/dev/ptmx"
: > "$root/dev/console"
mount --bind "$console" "$root/dev/console"
ip link set lo up

cd "$root"
pivot_root . before
umount -l /before
cd /
exec chroot / env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console
