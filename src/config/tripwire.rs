//! The value of `Tripwire`.
#![forbid(unsafe_code)]

use super::line::{Line, trim};
use super::{Diagnostic, Door};
use crate::limits::MAX_TRIPWIRES;
use crate::number::number;
use crate::quote::{around, quote};
use crate::tripwire::{PortRange, Tripwire, merge};

/// A single port that is listed, and where: line and column.
pub(super) type Single = (u16, (usize, usize));

/// What the value says; `singles` are then the ports that it lists singly.
pub(super) fn tripwire(
    line: Line<'_>,
    value: &[u8],
    singles: &mut Vec<Single>,
) -> Result<Tripwire<Vec<PortRange>>, Box<Diagnostic>> {
    singles.clear();
    if value.eq_ignore_ascii_case(b"none") {
        return Ok(Tripwire::None);
    }
    if value.eq_ignore_ascii_case(b"auto") {
        return Ok(Tripwire::Auto);
    }
    let wrong = |part: &[u8], what: &str| {
        let right = "; give auto, none, or ports such as 1-1023,5000";
        line.error(part, "syntax error", &["Tripwire: ", what, right].concat())
    };
    let mut ranges = Vec::new();
    for part in value.split(|b| *b == b',').map(trim) {
        let mut ends = part.splitn(2, |b| *b == b'-');
        let low = ends.next().and_then(port);
        let (Some(low), Some(high)) = (low, ends.next().map_or(low, port)) else {
            let what = match part {
                b"" => "a port is missing here".to_string(),
                part => around(
                    "",
                    part,
                    " is neither a port from 1 to 65535 nor a range of them",
                ),
            };
            return Err(wrong(part, &what));
        };
        if low > high {
            return Err(wrong(part, &around("", part, " ends before it begins")));
        }
        if !part.contains(&b'-') {
            singles.push((low, (line.number, line.column(part))));
        }
        ranges.push(PortRange { low, high });
    }
    let ranges = merge(ranges);
    if ranges.len() > MAX_TRIPWIRES {
        let what = format!("more than {MAX_TRIPWIRES} ranges");
        return Err(wrong(value, &what));
    }
    Ok(Tripwire::Ports(ranges))
}

fn port(text: &[u8]) -> Option<u16> {
    let port = number(trim(text), u16::MAX.into())?;
    (port > 0).then_some(port as u16)
}

/// Singly listed tripwires that are none, because they are ports of doors.
pub(super) fn futile(singles: &[Single], doors: &[Door]) -> impl Iterator<Item = Diagnostic> {
    singles.iter().filter_map(|(port, place)| {
        let has_port = |door: &&Door| {
            let steps = door
                .pattern
                .sequence
                .iter()
                .flat_map(|sequence| sequence.steps());
            steps.into_iter().any(|step| step.port == *port)
        };
        let door = doors.iter().find(has_port)?;
        let name = quote(door.name.as_bytes());
        let text = format!("Tripwire: port {port} is a step of door {name}, so it is no tripwire");
        Some(Diagnostic::at(*place, &text))
    })
}
