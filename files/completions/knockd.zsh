#compdef knockd knock
# Completes knockd and knock in zsh. Install it as _knockd in a directory of $fpath.

if [[ $service == knock ]]; then
    _arguments -s \
        {-u,--udp}'[send every knock over UDP]' \
        {-d,--delay}'[wait after each knock]:milliseconds:' \
        {-4,--ipv4}'[use IPv4 only]' \
        {-6,--ipv6}'[use IPv6 only]' \
        {-v,--verbose}'[print each knock]' \
        {-V,--version}'[print the version]' \
        {-h,--help}'[print a help text]' \
        ':host:_hosts' \
        '*:port[\:proto]:'
else
    _arguments -s \
        {-i,--interface}'[listen on this interface]:interface:(auto any $(ls /sys/class/net))' \
        {-d,--daemon}'[run in the background]' \
        {-c,--config}'[read this config]:file:_files' \
        {-D,--debug}'[print debug messages]' \
        {-l,--lookup}'[log host names too]' \
        {-p,--pidfile}'[write this pid file]:file:_files' \
        {-g,--logfile}'[log to this file]:file:_files' \
        {-v,--verbose}'[print log messages]' \
        {-4,--only-ip-v4}'[ignore IPv6]' \
        {-V,--version}'[print the version]' \
        {-h,--help}'[print a help text]' \
        --check'[describe the config]' \
        --strict"[match by knockd 0.8's rule]" \
        --status'[show the open doors]' \
        --json'[with --status: print JSON]' \
        --close'[close a door for an address]:door:(ban $(sed -n "/\\[options\\]/d; s/^ *\\[\\([-_.A-Za-z0-9]*\\)\\].*/\\1/p" /etc/knockd.conf 2> /dev/null))' \
        ':address:'
fi
