# Runs commands in a Debian system that it creates and can boot. Sourced by tests/package/debian and
# fresh-debian, which set test, a name, and base, a Debian system that is not changed.
# shellcheck shell=sh disable=SC2154 # set by them
# shellcheck disable=SC2016 # much is for the shell inside

# Sets folder, and group: a cgroup2 in which a machine boots, or empty if none can be created. Both
# are removed at the end.
make_folder() {
    folder=$(mktemp -d /tmp/knockd-debian.XXXXXX)
    group=$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2 .*/\1/p' /proc/mounts | head -n 1)
    group=${group:+$group/${folder##*/}}
    [ -z "$group" ] || mkdir "$group" 2> /dev/null || group=
    trap clean EXIT
    trap 'exit 1' HUP INT TERM
}

# shellcheck disable=SC2317 # the trap's
clean() {
    [ -z "$group" ] || find "$group" -depth -type d -delete 2> /dev/null || :
    rm -rf "$folder"
}

lost() {
    printf '%s: test %s: %s\n' "$0" "$test" "$*" >&2
    [ ! -s "$folder/said" ] || sed 's/^/    | /' "$folder/said" >&2
    exit 1
}

is() { # is RESULT EXPECTED
    [ "$1" = "$2" ] || lost "\"$1\", not \"$2\""
}

await() {
    await_for 20 "$@"
}

# Creates a new machine for each test. Its changes are discarded.
new_machine() {
    root=$folder/$test/root
    mkdir -p "$root" "$folder/$test/upper" "$folder/$test/work"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/$test/upper,workdir=$folder/$test/work" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
}

# inside COMMAND: runs it in the machine and fails if it fails. The output is also in $folder/said.
inside() {
    if [ -n "${process1-}" ]; then
        set -- nsenter -t "$process1" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -ec "$1"
    else
        set -- chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -ec "$1"
    fi
    "$@" > "$folder/said" 2>&1 < /dev/null || {
        status=$?
        [ -z "${must-yes}" ] || lost "failed: $*"
        return "$status"
    }
}

fails() {
    ! must='' inside "$1" || lost "should have failed: $1"
}

said() { # said TEXT: the last command printed it
    grep -q -- "$1" "$folder/said" || lost "did not say \"$1\""
}

silent() { # dpkg asks no questions
    ! grep -q -e '^ ==> ' -e 'What would you like' "$folder/said" || lost "asked about a config"
}

daemon() { # the only running daemon is the file "$1"
    inside 'pidof knockd'
    pid=$(cat "$folder/said")
    inside "readlink /proc/$pid/exe"
    is "$(cat "$folder/said")" "$1"
}

runs() {
    must='' inside 'pidof knockd > /dev/null'
}

runs_not() {
    ! runs
}

rules() {
    inside 'iptables -w -S INPUT'
    grep -c -- '--dport 22 ' "$folder/said" || :
}

open_now() {
    [ "$(rules)" -gt 0 ]
}

# Boots the machine: process 1 is the real systemd.
boot() {
    : > "$folder/console"
    sh -ec 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$group" \
        unshare --pid --fork --kill-child --mount --ipc --uts --cgroup --net \
        sh tests/package/boot.sh "$root" "$folder/console" > "$folder/boot" 2>&1 < /dev/null &
    booted=$!
    await "process 1" has_process1
    process1=$(cat "/proc/$booted/task/$booted/children")
    process1=${process1% }
    await_for 60 "systemd to answer" answers
}

has_process1() {
    [ -n "$(cat "/proc/$booted/task/$booted/children" 2> /dev/null)" ]
}

answers() {
    must='' inside 'systemctl is-system-running' || grep -qE 'running|degraded|starting' "$folder/said"
}
