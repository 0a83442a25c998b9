# Completes knockd and knock in fish. Install it as vendor_completions.d/knockd.fish with a link
# knock.fish.

complete -c knockd -f
complete -c knockd -s i -l interface -x -a 'auto any (ls /sys/class/net)' -d 'listen on this interface'
complete -c knockd -s d -l daemon -d 'run in the background'
complete -c knockd -s c -l config -r -F -d 'read this config'
complete -c knockd -s D -l debug -d 'print debug messages'
complete -c knockd -s l -l lookup -d 'log host names too'
complete -c knockd -s p -l pidfile -r -F -d 'write this pid file'
complete -c knockd -s g -l logfile -r -F -d 'log to this file'
complete -c knockd -s v -l verbose -d 'print log messages'
complete -c knockd -s 4 -l only-ip-v4 -d 'ignore IPv6'
complete -c knockd -s V -l version -d 'print the version'
complete -c knockd -s h -l help -d 'print a help text'
complete -c knockd -l check -d 'describe the config'
complete -c knockd -l strict -d 'match by knockd 0.8\'s rule'
complete -c knockd -l status -d 'show the open doors'
complete -c knockd -l json -d 'with --status: print JSON'
complete -c knockd -l close -x -a 'ban (sed -n "/\[options\]/d; s/^ *\[\([-_.A-Za-z0-9]*\)\].*/\1/p" /etc/knockd.conf 2> /dev/null)' -d 'close a door for an address'

complete -c knock -x -a '(__fish_print_hostnames)'
complete -c knock -s u -l udp -d 'send every knock over UDP'
complete -c knock -s d -l delay -x -d 'milliseconds to wait after each knock'
complete -c knock -s 4 -l ipv4 -d 'use IPv4 only'
complete -c knock -s 6 -l ipv6 -d 'use IPv6 only'
complete -c knock -s v -l verbose -d 'print each knock'
complete -c knock -s V -l version -d 'print the version'
complete -c knock -s h -l help -d 'print a help text'
