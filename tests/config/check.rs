//! The output of `knockd --check`: advice, verbatim where that matters, and the description of a
//! config.

use knockd_rs::check;
use knockd_rs::config::parse;
use std::path::Path;

fn advice(text: &str) -> Vec<String> {
    let config = parse(text.as_bytes(), &mut |_| ()).unwrap_or_else(|e| panic!("{text}\n{e:?}"));
    check::advice(&config)
        .into_iter()
        .map(|a| a.show(Path::new("k")))
        .collect()
}

/// Whether a line of advice contains `part`.
fn says(text: &str, part: &str) -> bool {
    advice(text).iter().any(|line| line.contains(part))
}

#[test]
fn a_good_door_draws_none() {
    let door = "[A]\nsequence=5000,300:udp,20000,400\ntcpflags=syn\n";
    assert_eq!(advice(door), [""; 0]);
    let opens = "command=iptables -I INPUT -s %IP% -j ACCEPT\nstop_command=iptables -D INPUT -s %IP% -j ACCEPT";
    assert_eq!(advice(&format!("{door}{opens}")), [""; 0]);
    assert_eq!(
        advice("[A]\none_time_sequences=/f\ntcpflags=syn\n"),
        [""; 0]
    );
    assert_eq!(advice("[A]\nsequence=9:udp,4:udp,7:udp,4:udp\n"), [""; 0]);
    assert_eq!(advice(""), [""; 0]);
}

#[test]
fn weak_sequences_are_named_with_door_and_line() {
    assert_eq!(
        advice("[A]\nsequence=7000,8000,9000\n"),
        [
            "k:1: door 'A': fewer than 4 steps: a scan or flood can hit them in order; use 5 or more",
            "k:1: door 'A': the ports are in ascending order, so a plain port scan performs this knock; shuffle them",
            "k:1: door 'A': this sequence is printed in manuals and tutorials; choose your own",
            "k:1: door 'A': TCP steps without tcpflags = syn: replies and other stray packets count as knocks",
        ]
    );
    assert!(says("[A]\nsequence=7\n", "a single packet opens it"));
    assert!(says(
        "[A]\nsequence=7,7,7,7\n",
        "all steps are the same port"
    ));
    assert!(!says("[A]\nsequence=7,7:udp,7,7\n", "the same port"));
    assert!(!says("[A]\nsequence=1,2,3,3\n", "ascending"));
    assert!(says(
        "[A]\nsequence=22:udp,22:udp,151,15:udp\n",
        "printed in manuals"
    ));
    assert!(!says(
        "[A]\nsequence=9:udp,4,7,4\ntcpflags=syn,!ack\n",
        "tcpflags"
    ));
}

#[test]
fn flags_that_knock_does_not_send_are_named() {
    let of = |flags: &str| advice(&format!("[A]\nsequence=9,4,7,4\ntcpflags={flags}\n"));
    let text = "k:1: door 'A': knock sends SYN alone, which does not count with these tcpflags; use tcpflags = syn";
    for flags in ["syn,ack", "fin,!ack", "!syn"] {
        assert_eq!(of(flags), [text], "{flags}");
    }
    assert!(!says(
        "[A]\nsequence=9:udp,4:udp,7:udp,4:udp\ntcpflags=fin\n",
        "tcpflags"
    ));
}

#[test]
fn slips_in_commands_are_named() {
    let of = |start: &str, stop: &str| {
        advice(&format!(
            "[A]\nsequence=9,4,7,4\ntcpflags=syn\nstart_command={start}\nstop_command={stop}\n"
        ))
    };
    let begin = "k:1: door 'A':";
    let token = format!(
        "{begin} a command has something like %IP%; only %IP% in capitals becomes the address"
    );
    for (start, stop) in [("add %ip%", "del %IP%"), ("add %IP%", "del %IP")] {
        assert_eq!(of(start, stop), [token.as_str()]);
    }
    assert_eq!(
        of("\"ipset add k %IP%\"", "ipset del k %IP%"),
        [format!(
            "{begin} the whole command is quoted, so the shell looks for a program of that name; remove the quotes"
        )]
    );
    assert_eq!(
        of("iptables \u{2013}I INPUT %IP%", "x"),
        [format!(
            "{begin} a command has typographic dashes, quotes or spaces; type plain ones"
        )]
    );
    assert_eq!(
        of("iptables -I INPUT -j ACCEPT", "iptables -D INPUT -j ACCEPT"),
        [format!("{begin} no %IP%, so it opens for everyone")]
    );
    assert_eq!(
        of("/etc/init.d/sshd start", "/etc/init.d/sshd stop"),
        [""; 0]
    );
}

#[test]
fn steps_that_are_neighbours_leave_no_room_for_a_tripwire() {
    assert_eq!(
        advice("[A]\nsequence=500,9000:udp,8999,40\ntcpflags=syn\n"),
        [
            "k:1: door 'A': two steps are adjacent ports, so no tripwire fits between them; use others"
        ]
    );
    assert!(!says("[A]\nsequence=500,9000,40,9001\n", "adjacent ports"));
    assert!(!says("[A]\nsequence=500,500,40,9001\n", "adjacent ports"));
}

fn warnings(text: &str) -> Vec<String> {
    let config = parse(text.as_bytes(), &mut |_| ()).expect("a config");
    let warnings = config.warnings.iter();
    warnings.map(|w| w.show(Path::new("k"))).collect()
}

#[test]
fn bans_without_effect_are_reported() {
    let of = |options: &str| warnings(&format!("[options]\n{options}[A]\nsequence = 500\n"));
    assert_eq!(
        of("Tripwire = auto\nTripwireHits = 3\nBanCommand = b %IP%\nUnbanCommand = u %IP%\n"),
        [""; 0]
    );
    assert_eq!(
        of("Tripwire = auto\nTripwireHits = 3\nAllow = 10.0.0.0/8\n"),
        [""; 0]
    );
    assert_eq!(
        of("Tripwire = auto\nBanTime = 9\nAllow = ::1\n"),
        [
            "k:3:1: without TripwireHits no one is banned, so this has no effect",
            "k:4:1: without TripwireHits no one is banned, so this has no effect"
        ]
    );
    let no_tripwires = "there are no tripwires, so no one is banned; write Tripwire = auto";
    assert_eq!(of("TripwireHits = 3\n"), [format!("k:2:1: {no_tripwires}")]);
    let strict = of("Tripwire = auto\nTripwireHits = 3\nMatching = strict\n");
    assert_eq!(strict.last(), Some(&format!("k:3:1: {no_tripwires}")));
    let undone = "there is no UnbanCommand for it, so what it does stays, unless it ends by itself";
    assert_eq!(
        of("Tripwire = auto\nTripwireHits = 3\nBanCommand = b %IP%\n"),
        [format!("k:4:1: {undone}")]
    );
    assert_eq!(
        of(
            "Tripwire = auto\nTripwireHits = 3\nBanCommand_6 = b %IP%\nUnbanCommand = u\nUnbanCommand_6 =\n"
        ),
        [format!("k:4:1: {undone}")]
    );
}

#[test]
fn ban_commands_that_hit_everyone_or_no_one_are_reported() {
    let of = |command: &str| {
        let door = "[A]\nsequence=9,4,7,4\ntcpflags=syn\n";
        advice(&format!(
            "[options]\nTripwireHits = 3\nBanCommand = {command}\n{door}"
        ))
    };
    assert_eq!(
        of("iptables -I INPUT -j DROP"),
        ["k: BanCommand: no %IP%, so it applies to everyone, and an attacker can choose when"]
    );
    assert_eq!(
        of("iptables -A INPUT -s %IP% -j DROP"),
        [
            "k: BanCommand: a rule is appended (-A) and never reached if the chain ends in a DROP; insert it (-I)"
        ]
    );
    assert_eq!(of("iptables -I INPUT -s %IP% -j DROP"), [""; 0]);
}

#[test]
fn the_description_says_who_is_banned_and_how() {
    let text = "[options]\nTripwire = auto\nTripwireHits = 3\nTripwireWindow = 60\nAllow = 10.0.0.0/8, ::1\n\
                BanCommand = ban %IP%\nBanCommand_6 =\n[A]\nsequence = 5\n";
    let mut config = parse(text.as_bytes(), &mut |_| ()).unwrap();
    let words = "  TripwireHits        3 tripwires\n  TripwireWindow      60 s\n  BanTime             600 s\n  \
                 BanCommand          ban %IP%\n  BanCommand_6        none\n  \
                 MaxBans             64 bans at once\n  Allow               10.0.0.0/8, ::1/128\n";
    let described = check::describe(&mut config);
    assert!(described.contains(words), "{described}");
}

#[test]
fn an_invalid_tripwire_is_reported_with_its_location() {
    assert_eq!(
        warnings("[options]\nTripwire = 1-1023, 5000, 500\n[A]\nsequence = 500,5000:udp\n"),
        [
            "k:2:20: this port is a step of door 'A', so it is no tripwire",
            "k:2:26: this port is a step of door 'A', so it is no tripwire",
        ]
    );
    assert_eq!(
        warnings("[options]\nTripwire = 1-65535\n[A]\nsequence = 500\n"),
        [""; 0]
    );
    assert_eq!(
        warnings("[options]\nMatching = strict\nTripwire = auto\n[A]\nsequence = 500\n"),
        ["k:3:1: Matching = strict is knockd 0.8's way and has no tripwires"]
    );
}

#[test]
fn the_description_names_the_tripwires() {
    for (value, words) in [
        (
            "auto",
            "  Tripwire            auto: around each step, and some random ports\n",
        ),
        ("5000, 7-9, 10", "  Tripwire            7-10, 5000\n"),
    ] {
        let text = format!("[options]\nTripwire = {value}\n[A]\nsequence = 5\n");
        let mut config = parse(text.as_bytes(), &mut |_| ()).unwrap();
        assert!(check::describe(&mut config).contains(words), "{value}");
    }
}

#[test]
fn commands_that_leave_a_door_open_or_never_open_it_are_named() {
    let door = |keys: &str| format!("[A]\nsequence=9,4,7,4\ntcpflags=syn\n{keys}");
    let append = door("command=iptables -A INPUT -s %IP% -j ACCEPT\nstop_command=true\n");
    assert_eq!(
        advice(&append),
        [
            "k:1: door 'A': a rule is appended (-A) and never reached if the chain ends in a DROP; insert it (-I)"
        ]
    );
    let insert = "iptables -I INPUT -s %IP% -j ACCEPT";
    let open = door(&format!("command={insert}\n"));
    assert_eq!(
        advice(&open),
        ["k:1: door 'A': it opens something and has no stop_command: it stays open"]
    );
    assert!(says(
        &door(&format!("command_6={insert}\n")),
        "something for IPv6 and"
    ));
    let half = door(&format!(
        "command={insert}\nstop_command=x\nstop_command_6=\n"
    ));
    assert!(says(&half, "something for IPv6 and"));
    assert!(says(
        &door(&format!("command={insert}\ncommand_6=\n")),
        "something for IPv4 and"
    ));
    assert_eq!(
        advice(&door("command=etherwake 00:11:22:33:44:55\n")),
        [""; 0]
    );
}

#[test]
fn a_trap_that_strangers_can_spring_is_a_danger() {
    let trap = |sequence: &str, command: &str| {
        format!("[A]\nsequence={sequence}\ncommand={command}\nstop_command=ip link set ppp0 up\n")
    };
    let danger = "danger: anyone can take the line down with a few forged packets: \
                  the sequence is easy to guess, and it runs ip link set ppp0 down";
    assert!(says(&trap("1,2,3,4,5", "ip link set ppp0 down"), danger));
    assert!(says(
        &trap("5,4,3,2,1", "stop_service wan"),
        "danger: anyone"
    ));
    assert!(says(&trap("80", "reboot"), "danger: anyone"));
    assert!(!says(&trap("9,4,7,4", "reboot"), "danger"));
    assert!(!says(&trap("1,2,3,4,5", "echo"), "danger"));
}

#[test]
fn doors_that_open_one_another_are_named_once_a_pair() {
    let pair = |a: &str, b: &str| {
        let text = format!("[A]\nsequence={a}\ntcpflags=syn\n[B]\nsequence={b}\ntcpflags=syn\n");
        advice(&text)
            .into_iter()
            .filter(|l| l.contains("'B'") && l.contains("line 4"))
            .collect::<Vec<_>>()
    };
    for (a, b, text) in [
        (
            "9,4,7,5",
            "9,4,7,5",
            "the same knock opens 'B' (line 4) too",
        ),
        (
            "9,4,7,5,1",
            "9,4,7,5",
            "its sequence begins with that of 'B' (line 4), which opens first",
        ),
        (
            "1,9,4,7,5",
            "9,4,7,5",
            "its sequence contains that of 'B' (line 4): during a knock at the longer one the shorter does not open and must be knocked again",
        ),
        (
            "9,4,7,5",
            "9,4,7,5,1",
            "its sequence begins that of 'B' (line 4): this door opens first",
        ),
        (
            "9,4,7,5",
            "1,9,4,7,5",
            "its sequence lies within that of 'B' (line 4): during a knock at the longer one the shorter does not open and must be knocked again",
        ),
        (
            "9,4,7,5",
            "7,5,9,4",
            "its sequence is a rotation of that of 'B' (line 4): when a packet is lost, knocking one again can open the other; use different ports",
        ),
    ] {
        assert_eq!(pair(a, b), [format!("k:1: door 'A': {text}")]);
    }
    // Gaps and reversals: neither door opens with the other one's knock.
    for b in ["9,4,5,7", "5,7,4,9", "9,4,1,7,5"] {
        assert_eq!(pair("9,4,7,5", b), [""; 0], "{b}");
    }
}

/// Only the advice about commands. The rest of the door is good.
fn of_commands(keys: &str) -> Vec<String> {
    let text = format!("[A]\nsequence=9,4,7,4\ntcpflags=syn\n{keys}\n");
    let advice = advice(&text).into_iter();
    advice
        .map(|line| line.replace("k:1: door 'A': ", ""))
        .collect()
}

const STAYS: &str = "it opens something and has no stop_command: it stays open";
const TO_ALL: &str = "no %IP%, so it opens for everyone";

#[test]
fn what_closes_by_itself_or_opens_nothing_draws_no_alarm() {
    for keys in [
        "command=iptables -I INPUT -p tcp --dport 22 -j LOG",
        "command=iptables -I INPUT -s %IP% -j mychain",
        "command=iptables -I INPUT -s %IP% -j ACCEPT; echo iptables -D INPUT -s %IP% -j ACCEPT | at now + 10 minutes",
        "command=nft add element inet filter knock4 { %IP% }",
        "command=nft add element inet filter knock4 { %IP% timeout 20s }",
        "command=ipset add knock %IP% -exist",
        "command=firewall-cmd --zone=trusted --add-source=%IP%/32 --timeout=300",
        "command=iptables -D INPUT -s %IP% -j ACCEPT",
        "command=iptables -I INPUT -s 192.0.2.1 -j ACCEPT\nstop_command=iptables -D INPUT -s 192.0.2.1 -j ACCEPT",
        "command=ufw insert 1 allow from %IP% to any port 22\nstop_command=ufw delete allow from %IP% to any port 22",
    ] {
        assert_eq!(of_commands(keys), [""; 0], "{keys}");
    }
}

#[test]
fn a_wrong_placeholder_is_the_slip_that_is_named() {
    for source in ["$IP", "%HOST%", "${IP}"] {
        let rule = format!("INPUT -s {source} -p tcp --dport 22 -j ACCEPT");
        let advice = of_commands(&format!(
            "command=iptables -I {rule}\nstop_command=iptables -D {rule}"
        ));
        assert_eq!(
            advice,
            ["a command has something like %IP%; only %IP% in capitals becomes the address"],
            "{source}"
        );
    }
}

#[test]
fn each_way_to_open_is_known() {
    for (command, to_all) in [
        ("ufw allow from %IP% to any port 22", false),
        ("ufw allow 22/tcp", true),
        ("firewall-cmd --add-port=22/tcp", true),
        ("iptables -P INPUT ACCEPT", true),
        ("iptables -D INPUT -s %IP% -j DROP", false),
        ("iptables -D INPUT -p tcp --dport 22 -j REJECT", true),
        (
            "iptables -t nat -I PREROUTING -s %IP% -p tcp --dport 22 -j DNAT --to 192.168.1.2",
            false,
        ),
    ] {
        let expected = if to_all {
            vec![TO_ALL, STAYS]
        } else {
            vec![STAYS]
        };
        assert_eq!(
            of_commands(&format!("command={command}")),
            expected,
            "{command}"
        );
    }
}

#[test]
fn a_stop_command_that_leaves_a_rule_is_named() {
    let of = |start: &str, stop: &str| {
        of_commands(&format!("start_command={start}\nstop_command={stop}"))
    };
    let stays =
        "the stop command deletes a different rule than the start command adds, so that rule stays";
    let start = "iptables -I INPUT -i lo -s %IP% -p tcp --dport 22 -j ACCEPT";
    assert_eq!(
        of(
            start,
            "iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"
        ),
        [stays]
    );
    assert_eq!(
        of(
            start,
            "iptables -D INPUT -p tcp --dport 22 -i lo -s %IP% -j ACCEPT"
        ),
        [""; 0]
    );
    assert_eq!(of(start, "/etc/init.d/firewall restart"), [""; 0]);
    let v6 = "start_command_6=ip6tables -I INPUT -s %IP% -j ACCEPT\nstop_command_6=ip6tables -D FORWARD -s %IP% -j ACCEPT";
    assert_eq!(of_commands(v6), [stays]);
    let flushes =
        "a command flushes (-F) a chain that other programs use; delete (-D) the door's own rule";
    assert_eq!(of(start, "iptables -F INPUT"), [flushes]);
    assert_eq!(of(start, "iptables -F knocked"), [""; 0]);
    let number = "a command deletes a rule by number, which can be another rule by then; repeat the rule itself";
    assert_eq!(of(start, "iptables -D INPUT 1"), [number]);
    assert_eq!(
        of_commands(&format!(
            "start_command={start}\ncmd_timeout=0\nstop_command=x"
        )),
        ["cmd_timeout = 0: it closes as soon as it has opened"]
    );
}

#[test]
fn a_door_that_undoes_another_is_described_as_its_closing() {
    let text = "[open]\nsequence=9,4,7,5\ntcpflags=syn\ncommand=/sbin/iptables -I INPUT -s %IP% -j ACCEPT\n\
                [close]\nsequence=5,7,4,9\ntcpflags=syn\ncommand=iptables -D INPUT -s %IP% -j ACCEPT\n";
    assert_eq!(advice(text), [""; 0]);
    let mut config = parse(text.as_bytes(), &mut |_| ()).unwrap();
    let described = check::describe(&mut config);
    assert!(
        described.contains("  closed by           'close' (line 5)\n\nDoor 'close'"),
        "{described}"
    );
    assert!(
        described.ends_with("  closes              'open' (line 1)\n"),
        "{described}"
    );
    let other = text.replace("-D INPUT", "-D FORWARD");
    assert!(says(&other, "it stays open"));
}

#[test]
fn the_description_says_what_to_knock_and_what_runs() {
    let text = "[options]\nUseSyslog\nInterface=ppp0\n\
                [SSH]\nsequence=7000,8000:udp\nseq_timeout=5\ntcpflags=syn,!ack\n\
                command=open %IP%\ncommand_6=\ncmd_timeout=20\nstop_command=close %IP%\n\
                [once]\none_time_sequences=/etc/once\ntarget=192.0.2.1\ncommand=wake\n\
                [log]\nsequence=5\n";
    let mut config = parse(text.as_bytes(), &mut |_| ()).unwrap();
    let described = check::describe(&mut config);
    for line in [
        "Options\n",
        "  UseSyslog           on\n",
        "  LogFile             no file\n",
        "  Interface           ppp0\n",
        "  Matching            tolerant: repeats and a few stray knocks are forgiven\n",
        "  Reknock             renew: a second knock renews the time of an open door\n",
        "  LogRate             50 lines a second (0: no bound)\n",
        "  StateDir            /var/run/knockd\n",
        "  CommandTimeout      600 s\n",
        "  TripwireHits        no one is banned\n\n",
    ] {
        assert!(described.contains(line), "{line}");
    }
    assert_eq!(
        &described[described.find("Door").unwrap()..],
        "\
Door 'SSH' (line 4)
  sequence            7000:tcp,8000:udp
  seq_timeout         5 s
  tcpflags            syn, !ack
  target              any address of the interface
  start_command       open %IP%
  start_command_6     none
  cmd_timeout         20 s
  stop_command        close %IP%
  stop_command_6      none
  to knock            knock ROUTER 7000:tcp 8000:udp

Door 'once' (line 12)
  one_time_sequences  /etc/once
  seq_timeout         25 s
  tcpflags            none: any TCP packet
  target              192.0.2.1
  start_command       wake
  closed by           nothing: no stop command

Door 'log' (line 16)
  sequence            5:tcp
  seq_timeout         25 s
  tcpflags            none: any TCP packet
  target              any address of the interface
  start_command       none: only a log line
  to knock            knock ROUTER 5:tcp
"
    );
}

#[test]
fn a_secret_that_others_can_read_or_write_is_named() {
    let says = |mode, uid| {
        check::mode_advice(mode, uid, "its commands run as root").map(|a| a.show(Path::new("k")))
    };
    assert_eq!(says(0o100600, 0), None);
    assert_eq!(
        says(0o100644, 0).as_deref(),
        Some("k: others can read this file, and the sequences are secret; chmod 600 it")
    );
    assert_eq!(
        says(0o100660, 0).as_deref(),
        Some("k: others can write this file, and its commands run as root; chmod 600 it")
    );
    assert_eq!(
        says(0o100600, 1000).as_deref(),
        Some("k: user 1000 owns this file, and its commands run as root; chown it to root")
    );
}
