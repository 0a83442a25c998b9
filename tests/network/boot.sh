#!/bin/sh
# Boots a real systemd that has only our unit. Run it in new pid, mount, ipc, uts and cgroup
# namespaces:
#     boot.sh FOLDER KNOCKD UNIT CONFIG OPTIONS [DROP-IN]
# An overlay provides the system's files without changing them. Console output goes to
# FOLDER/console.
set -eu
folder=$1 knockd=$2 unit=$3 config=$4 options=$5 drop_in=${6-}

mount --make-rprivate /
mkdir "$folder/boot"
mount -t tmpfs tmpfs "$folder/boot"
mkdir "$folder/boot/upper" "$folder/boot/work" "$folder/boot/root"
root=$folder/boot/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/boot/upper,workdir=$folder/boot/work" "$root"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# PrivateDevices= needs these.
mkdir "$root/dev/pts" "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
: > "$folder/console"
: > "$root/dev/console"
mount --bind "$folder/console" "$root/dev/console"

# The test's directory has the same path inside, because configs and notes are in it.
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
rm -f "$root/usr/sbin/knockd"
# A minimal machine has no kill.
rm -f "$root/bin/kill" "$root/usr/bin/kill"
cp "$knockd" "$root/usr/sbin/knockd"
cp "$config" "$root/etc/knockd.conf"
mkdir -p "$root/etc/default"
rm -f "$root/etc/default/knockd"
if [ -n "$options" ]; then
    echo "KNOCKD_OPTS=\"$options\"" > "$root/etc/default/knockd"
fi

units=$root/etc/only-these-units
mkdir "$units"
cp "$unit" "$units/knockd.service"
if [ -n "$drop_in" ]; then
    mkdir "$units/knockd.service.d"
    cp "$drop_in" "$units/knockd.service.d/"
fi
for target in sysinit basic shutdown network multi-user; do
    printf '[Unit]\nDefaultDependencies=no\n' > "$units/$target.target"
done
# As `systemctl enable` does.
mkdir "$units/multi-user.target.wants"
ln -s ../knockd.service "$units/multi-user.target.wants/knockd.service"

# systemd cannot give a unit its own file system view inside a plain chroot.
mkdir "$root/before"
cd "$root"
pivot_root . before
umount -l /before
cd /
exec chroot / env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/etc/only-these-units \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console
