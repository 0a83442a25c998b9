# shellcheck shell=sh
# Creates the first door: draws a random sequence and writes the door into a config. All packages
# use this file: scripts/build-ipk includes it in the postinst of DD-WRT's package, and make-door of
# the others sources it.

# Prints random digits, each of the ten equally likely.
random_digits() {
    dd if=/dev/urandom bs=1024 count=2 2> /dev/null | tr -dc 0-9
}

# Draws five different ports from 1024 up, tcp and udp mixed, not ascending, and sets sequence and
# knock. Discards a draw that does not match and draws all five again, so that all such sequences
# are equally likely. Fails if /dev/urandom yields no digits, or always the same.
draw_sequence() {
    pool='' draws=0
    while :; do
        sequence='' knock='' ports=' ' before=0 ascends=yes tcp=0 udp=0
        while [ $((tcp + udp)) -lt 5 ]; do
            while [ ${#pool} -lt 6 ]; do
                more=$(random_digits)
                [ -n "$more" ] || return 1
                pool=$pool$more
            done
            draws=$((draws + 1)) # about 10 are enough
            [ "$draws" -le 500 ] || return 1
            rest=${pool#??????}
            draw=${pool%"$rest"}
            pool=$rest
            # The sixth digit selects the protocol. The 1 in front keeps leading zeros from meaning
            # octal.
            port=$((1${draw%?} - 100000))
            if [ "$port" -lt 1024 ] || [ "$port" -gt 65535 ]; then
                continue
            fi
            case $draw in
                *[02468]) tcp=$((tcp + 1)) step=$port ;;
                *) udp=$((udp + 1)) step=$port:udp ;;
            esac
            case $ports in
                *" $port "*) tcp=9 ;; # a port twice: discard the draw
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

# make_door FILE NAME [PORT]: creates the first door in the config FILE, for SSH on PORT (22).
# Messages call the file NAME. Does nothing unless FILE has the sentence of a config that was not
# edited.
make_door() {
    grep -q '^# Only \[options\] is active here\.' "$1" 2> /dev/null || return 0
    if ! draw_sequence; then
        echo "knockd-rs: created no door: /dev/urandom yields no random numbers; write a door in $2 yourself" >&2
        return
    fi
    port=${3:-}
    case $port in
        '' | *[!0-9]*) port=22 ;;
    esac
    option=
    [ "$port" = 22 ] || option=" -p $port"
    # Only root may read the sequence: no process gets it as an argument, which every user could
    # read.
    umask 077
    rm -f "$1.sed" "$1.new"
    set -C # follow no link
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
        echo "knockd-rs: created no door: cannot write $2; free some space and write a door there yourself" >&2
    fi
    rm -f "$1.sed"
    set +C
}
