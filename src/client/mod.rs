//! The programs that users run in addition to the daemon. This one is `knock`: it sends the knocks
//! of a sequence, one after another.
#![forbid(unsafe_code)]

pub mod control;

use crate::cli::{self, KnockArgs, KnockStep, eprint_line, print};
use crate::knock::Protocol;
use crate::resolve::{self, NameError};
use crate::sys::knocker::Knocker;
use crate::sys::poll;
use crate::sys::program::{self, ExitCode};
use crate::util::number::parse_uint;
use crate::util::path::file_name;
use crate::util::text::shown;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

/// Returns whether the program was called as the client: as `knock`, in any directory.
pub fn is_called_by(argv: &[OsString]) -> bool {
    argv.first()
        .is_some_and(|name| file_name(Path::new(name)) == "knock")
}

/// Runs the client. Exit status 0: every step was sent; 1: the kernel refused one, which is
/// reported on stderr, or there was an error before.
// Inlined into `main`, it would be resident in the daemon (cross/layout.ld).
#[inline(never)]
pub fn main(argv: &[OsString]) -> ! {
    let args = cli::knock(argv).settle(&cli::KNOCK);
    let sent = resolve(&args).and_then(|(host, ports)| send(&args, host, &ports));
    if let Err(error) = sent {
        cli::fail(&error);
    }
    program::exit(ExitCode::SUCCESS)
}

/// Resolves the host and the port of each step. Resolves everything before the first is sent,
/// because an incomplete knock opens nothing. Looks the host up once: if the DNS has several
/// addresses, each lookup could return another.
fn resolve(args: &KnockArgs) -> Result<(SocketAddr, Vec<u16>), String> {
    let failed = |port: &str, error: NameError| {
        [
            "Failed to resolve hostname '",
            args.host,
            "' on port ",
            port,
            "\ngetaddrinfo: ",
            error.words(),
        ]
        .concat()
    };
    let mut ports = Vec::new();
    for step in &args.steps {
        ports.push(match port_number(step.port)? {
            Some(port) => port,
            None => resolve::resolve_service(step.port).map_err(|e| failed(step.port, e))?,
        });
    }
    let host = resolve::resolve_host(args.host, args.family);
    let host = host.map_err(|e| failed(args.steps[0].port, e))?;
    if let SocketAddr::V6(v6) = host
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
        && args.steps.iter().any(|step| step.protocol == Protocol::Tcp)
    {
        // The kernel would report an invalid argument. A datagram uses the first route of any
        // interface, as with knock 0.8.
        return Err([
            "knock: ",
            args.host,
            " needs an interface, as in fe80::1%eth0",
        ]
        .concat());
    }
    Ok((host, ports))
}

/// Returns the port if the text is a number; `None` if it can be the name of a service.
fn port_number(text: &str) -> Result<Option<u16>, String> {
    let trimmed = text.trim_ascii_start().as_bytes();
    let signs = trimmed.iter().take_while(|byte| b"+-".contains(byte));
    let digits = &trimmed[signs.count()..];
    // Written as in a config or for a port scanner. No service has such a name.
    if text.bytes().any(|byte| byte == b',' || byte == b'/') {
        return Err(invalid_port(text, "write ports as 7000 8000:udp 9000"));
    }
    if !text.is_empty() && (digits.is_empty() || !digits.iter().all(u8::is_ascii_digit)) {
        return Ok(None);
    }
    let unsigned = trimmed.strip_prefix(b"+").unwrap_or(trimmed);
    match parse_uint(unsigned, 65535) {
        Some(port @ 1..) => Ok(Some(port as u16)),
        _ => Err(invalid_port(text, "use 1 to 65535")),
    }
}

fn invalid_port(port: &str, right: &str) -> String {
    ["knock: invalid port \"", port, "\"; ", right].concat()
}

fn send(args: &KnockArgs, mut target: SocketAddr, ports: &[u16]) -> Result<(), String> {
    for step in &args.steps {
        if let Some(unknown) = step.unknown_protocol {
            let port = step.port;
            let word = ["\"", port, ":", unknown, "\""].concat();
            eprint_line(
                &[
                    "knock: warning: ",
                    &word,
                    ": use tcp or udp (sent over TCP)",
                ]
                .concat(),
            );
        }
    }
    let mut unsent = 0;
    for (step, port) in args.steps.iter().zip(ports) {
        target.set_port(*port);
        let knocker = Knocker::open(step.protocol == Protocol::Tcp, &target)
            .map_err(|error| ["Cannot open socket: ", &shown(&error)].concat())?;
        if args.verbose {
            print(&["hitting ", &step_line(step, &target), "\n"].concat());
        }
        if let Err(error) = knocker.knock() {
            unsent += 1;
            let step = step_line(step, &target);
            eprint_line(&["knock: ", &step, " not sent: ", &shown(&error)].concat());
        }
        poll::pause(args.delay);
    }
    match unsent {
        0 => Ok(()),
        _ if unsent == args.steps.len() => Err("knock: nothing was sent".into()),
        _ => Err("knock: not every step was sent, so no door opens".into()),
    }
}

/// `tcp 192.0.2.1:7000`, the port as typed.
fn step_line(step: &KnockStep, target: &SocketAddr) -> String {
    let protocol = match step.protocol {
        Protocol::Tcp => "tcp ",
        Protocol::Udp => "udp ",
    };
    [protocol, &resolve::address_text(target), ":", step.port].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_known_by_its_name_alone() {
        let called = |name: &str| is_called_by(&[name.into()]);
        assert!(called("knock") && called("/jffs/usr/bin/knock") && called("./knock"));
        assert!(!called("knockd") && !called("/knock/knockd") && !called("") && !is_called_by(&[]));
    }

    #[test]
    fn port_numbers_are_1_to_65535() {
        for (text, port) in [
            ("1", 1),
            ("65535", 65535),
            ("+7000", 7000),
            (" 7000", 7000),
            ("007", 7),
        ] {
            assert_eq!(port_number(text), Ok(Some(port)), "{text}");
        }
        for text in [
            "0",
            "65536",
            "70000",
            "-1",
            "99999999999999999999",
            "",
            "+65536",
        ] {
            let error = port_number(text).unwrap_err();
            assert!(
                error.contains("1 to 65535") && error.contains(text),
                "{error}"
            );
        }
        for text in ["7000,8000", "7000/udp"] {
            let error = port_number(text).unwrap_err();
            assert!(
                error.contains("8000:udp") && error.contains(text),
                "{error}"
            );
        }
        for text in ["ssh", "7300x", "7000 ", "+", " ", "x1", "-ssh"] {
            assert_eq!(port_number(text), Ok(None), "{text}");
        }
    }
}
