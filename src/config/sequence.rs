//! A knock sequence: the value of `sequence`, and a line of a one-time file.
#![forbid(unsafe_code)]

use super::line::{characters_before, trim};
use super::values::leading_number;
use super::{Diagnostic, Problem};
use crate::knock::{Protocol, Sequence, Step};
use crate::limits::MAX_STEPS;
use crate::util::quote::{quote, truncate_for_log};
use crate::util::text::shown;
use nom::bytes::complete::{tag, take_till};
use nom::combinator::opt;
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// One step in text: `port[:protocol[:ignored]]`.
struct RawStep<'a> {
    port: &'a [u8],
    protocol: Option<&'a [u8]>,
    ignored: Option<&'a [u8]>,
}

fn raw_step(text: &[u8]) -> IResult<&[u8], RawStep<'_>> {
    let part = || take_till(|b| b == b',' || b == b':');
    let tail = take_till(|b| b == b',');
    let (after, (port, protocol, ignored)) = (
        part(),
        opt(preceded(tag(":"), part())),
        opt(preceded(tag(":"), tail)),
    )
        .parse(text)?;
    Ok((
        after,
        RawStep {
            port,
            protocol,
            ignored,
        },
    ))
}

/// Parses the steps in `text`, which begins at this `line` and `column` (characters, from 1) of its
/// file. What knockd 0.8 accepts but no knock can match, such as port 0 or junk for a port, is an
/// error, so that a bad line of a one-time file is skipped instead of blocking it. Adds to
/// `warnings` for text with a plausible meaning. `door` is for knockd's error texts.
pub fn parse_sequence(
    door: &str,
    (line, column): (usize, usize),
    text: &[u8],
    warnings: &mut Vec<Problem>,
) -> Result<Sequence, Box<Diagnostic>> {
    let place = |part: &[u8]| (line, column + characters_before(text, part));
    let error = |part: &[u8], what: [&str; 3], message: [&str; 2]| {
        let wording = ["config: section ", door, ": ", what[0], what[1], what[2]];
        Diagnostic::error(place(part), &wording, &message)
    };
    let mut steps: heapless::Vec<Step, MAX_STEPS> = heapless::Vec::new();
    let mut todo = Some(text).filter(|text| !trim(text).is_empty());
    while let Some(this) = todo {
        let Ok((after, raw)) = raw_step(this) else {
            break;
        };
        todo = after.strip_prefix(b",");
        let written = trim(raw.port);
        if steps.is_full() {
            const { assert!(MAX_STEPS == 32) };
            let what = ["too many ports in knock sequence", "", ""];
            return Err(error(written, what, ["give at most 32 ports", ""]));
        }
        let found = quote(written);
        // knockd 0.8 uses atoi(), truncates to 32 bits, refuses values above 65535, then truncates
        // to 16 bits.
        let number = leading_number(written).map_or(0, |(number, _)| number);
        let Ok(port @ 1..) = u16::try_from(number) else {
            let what = ["port ", &truncate_for_log(raw.port), " is invalid"];
            return Err(error(
                written,
                what,
                [&found, " is not a port from 1 to 65535"],
            ));
        };
        if !written.iter().all(u8::is_ascii_digit) {
            let right = "; separate ports with commas, put a comment on its own line";
            let message = [&found, " is read as port ", &shown(&port), right];
            Diagnostic::at(place(written), &message).add_to(warnings);
        }
        let protocol = match raw.protocol.map(trim) {
            None => Protocol::Tcp,
            Some(p) if p.eq_ignore_ascii_case(b"tcp") => Protocol::Tcp,
            Some(p) if p.eq_ignore_ascii_case(b"udp") => Protocol::Udp,
            Some(other) => {
                let what = ["unknown protocol in knock sequence", "", ""];
                let message = [&quote(other), " is no protocol; use tcp or udp"];
                return Err(error(other, what, message));
            }
        };
        if let Some(ignored) = raw.ignored {
            let message = [&quote(ignored), " after the second ':' has no meaning"];
            Diagnostic::at(place(ignored), &message).add_to(warnings);
        }
        if steps.push(Step { protocol, port }).is_err() {
            break; // It is not full: checked above.
        }
    }
    Sequence::new(&steps).ok_or_else(|| {
        let wording = ["error: section '", door, "' has an empty knock sequence"];
        let message = "no ports; list them as 7000,8000:udp,9000";
        Diagnostic::error(place(text), &wording, &[message])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, usize), Box<Diagnostic>> {
        let mut warnings = Vec::new();
        parse_sequence("A", (3, 10), text.as_bytes(), &mut warnings)
            .map(|s| (s.to_string(), warnings.len()))
    }

    #[test]
    fn a_sequence_is_ports_with_protocols_in_any_case_and_blanks() {
        assert_eq!(parsed("7000 , 8000:UDP\r").unwrap().0, "7000:tcp,8000:udp");
        assert_eq!(
            parsed("1 : udp , 0080: Tcp :x").unwrap(),
            ("1:udp,80:tcp".into(), 1)
        );
        assert_eq!(parsed("+7").unwrap(), ("7:tcp".into(), 1));
        let most = vec!["1"; MAX_STEPS].join(",");
        assert_eq!(parsed(&most).unwrap().0.split(',').count(), MAX_STEPS);
    }

    #[test]
    fn what_no_packet_can_match_is_refused_where_it_stands() {
        for (text, column, port) in [
            ("1,2,", 14, ""),
            ("1,,2", 12, ""),
            ("hello", 10, "hello"),
            ("1, x12", 13, " x12"),
            ("-1", 10, "-1"),
            ("0", 10, "0"),
            ("4294967297", 10, "4294967297"),
            ("99999999999999999999", 10, "99999999999999999999"),
            ("# 1", 10, "# 1"),
            (",", 10, ""),
        ] {
            let error = parsed(text).unwrap_err();
            assert_eq!((error.line, error.column), (3, column), "{text}");
            let wording = format!("config: section A: port {port} is invalid");
            assert_eq!(error.knockd_wording, Some(wording), "{text}");
        }
    }

    #[test]
    fn text_after_a_port_is_passed_over_with_a_warning() {
        for (text, sequence, warnings) in [
            ("1,2 # text", "1:tcp,2:tcp", 1),
            ("12x,2", "12:tcp,2:tcp", 1),
            ("1 2", "1:tcp", 1),
            ("1,2;3", "1:tcp,2:tcp", 1),
            ("1 # a:udp, 2 # b", "1:udp,2:tcp", 2),
            ("65535x", "65535:tcp", 1),
        ] {
            assert_eq!(parsed(text).unwrap(), (sequence.into(), warnings), "{text}");
        }
    }

    #[test]
    fn the_33rd_port_is_too_many_whatever_it_says() {
        for last in ["33", "99999"] {
            let text = format!("{}{last}", "1,".repeat(MAX_STEPS));
            assert_eq!(
                parsed(&text).unwrap_err().knockd_wording.as_deref(),
                Some("config: section A: too many ports in knock sequence")
            );
        }
    }
}
