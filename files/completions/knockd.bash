# Completes knockd and knock in bash. Source it, or install it as
# /usr/share/bash-completion/completions/knockd with a link knock.

_knockd() {
    local options word=$2 previous=$3
    options='-i --interface -d --daemon -c --config -D --debug -l --lookup -p --pidfile -g --logfile -v --verbose
        -4 --only-ip-v4 -V --version -h --help --check --strict --status --json --close'
    case $previous in
        -i | --interface) options="auto any $(ls /sys/class/net)" ;;
        # An empty reply makes readline complete a file name.
        -c | --config | -p | --pidfile | -g | --logfile) return ;;
        --close) options="ban $(sed -n '/\[options\]/d; s/^ *\[\([-_.A-Za-z0-9]*\)\].*/\1/p' /etc/knockd.conf 2> /dev/null)" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -o default -F _knockd knockd

_knock() {
    local options='-u --udp -d --delay -4 --ipv4 -6 --ipv6 -v --verbose -V --version -h --help'
    case $3,$2 in
        -d,* | --delay,*) ;;
        *,-*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$2") ;;
        *) mapfile -t COMPREPLY < <(compgen -A hostname -- "$2") ;;
    esac
}
complete -F _knock knock
