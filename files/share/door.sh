# shellcheck shell=sh
# The first door: draws a sequence and writes the door into a config. One source for all packages: scripts/build-ipk puts it into
# the postinst of DD-WRT's package, and make-door of the others reads it.

# Digits of /dev/urandom: each of the ten is as likely as any other.
digits() {
    dd if=/dev/urandom bs=1024 count=2 2> /dev/null | tr -dc 0-9
}

# Five different ports from 1024 up, tcp and udp mixed, not ascending. A draw that is not so is thrown away whole,
# so that every sequence that is so is equally likely. Sets: sequence, knock. Fails where /dev/urandom gives no digits, or always
# the same.
draw() {
    pool='' draws=0
    while :; do
        sequence='' knock='' ports=' ' before=0 ascends=yes tcp=0 udp=0
        while [ $((tcp + udp)) -lt 5 ]; do
            while [ ${#pool} -lt 6 ]; do
                more=$(digits)
                [ -n "$more" ] || return 1
                pool=$pool$more
            done
            draws=$((draws + 1)) # 10 or so are enough
            [ "$draws" -le 500 ] || return 1
            rest=${pool#??????}
            draw=${pool%"$rest"}
            pool=$rest
            # The sixth digit is for the protocol. The 1 keeps zeros in front from meaning octal.
            port=$((1${draw%?} - 100000))
            if [ "$port" -lt 1024 ] || [ "$port" -gt 65535 ]; then
                continue
            fi
            case $draw in
                *[02468]) tcp=$((tcp + 1)) step=$port ;;
                *) udp=$((udp + 1)) step=$port:udp ;;
            esac
            case $ports in
                *" $port "*) tcp=9 ;; # twice the same: off with it
            esac
            [ "$port" -gt "$before" ] || ascends=no
            before=$port
            ports="$ports$port "
            sequence=$sequence${sequence:+,}$step
            knock="$knock $step"
        done
        if [ $((tcp + udp)) = 5 ] && [ "$tcp" -gt 0 ] && [ "$udp" -gt 0 ] && [ "$ascends" = no ]; then
            return
        fi
    done
}

# make_door FILE NAME [PORT]: the first door, in the config FILE, which a person knows as NAME. PORT is that of SSH. Only in a config
# that is as it was shipped: the sentence about what is active says so.
make_door() {
    grep -q '^# Only \[options\] is active here\.' "$1" 2> /dev/null || return 0
    if ! draw; then
        echo "knockd-rs: no door was made: /dev/urandom gives no random numbers; write one in $2 yourself" >&2
        return
    fi
    port=${3:-}
    case $port in
        '' | *[!0-9]*) port=22 ;;
    esac
    option=
    [ "$port" = 22 ] || option=" -p $port"
    # The sequence stands in files for root alone, and in no process's arguments, which every user can read.
    umask 077
    rm -f "$1.sed" "$1.new"
    set -C # no link is followed
    if cat > "$1.sed" << END && sed -f "$1.sed" "$1" > "$1.new" && mv "$1.new" "$1"; then
s/^# Only \[options\] is active here\. Each door/# Only [options] and [SSH] are active here; the sequence of [SSH] is random. Each other door/
s/^# From outside:  knock ROUTER .* && ssh/# From outside:  knock ROUTER$knock \&\& ssh/
/^#\[SSH\]/,/^[^#]*\$/{
s/^#//
s/^\(sequence *= *\).*/\1$sequence/
s/--dport 22 /--dport $port /
}
END
        cat << END

knockd-rs: created an SSH door with a random sequence, in $2.
From outside:

    knock ROUTER$knock && ssh$option root@ROUTER

END
    else
        rm -f "$1.new"
        echo "knockd-rs: no room to make a door in $2; write one there yourself" >&2
    fi
    rm -f "$1.sed"
    set +C
}
