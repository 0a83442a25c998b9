//! The value of `Tripwire`.
#![forbid(unsafe_code)]

use super::line::{Line, trim};
use super::values::{choice, within};
use super::{Diagnostic, Door};
use crate::limits::MAX_TRIPWIRES;
use crate::quote::quote;
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
    match choice(value, &["none", "auto"]) {
        Some(0) => return Ok(Tripwire::None),
        Some(_) => return Ok(Tripwire::Auto),
        None => {}
    }
    let wrong = |part: &[u8], what: &str| {
        let text = format!("Tripwire: {what}; give auto, none, or ports such as 1-1023,5000");
        line.error(part, "syntax error", text)
    };
    let mut ranges = Vec::new();
    for part in value.split(|b| *b == b',').map(trim) {
        let mut ends = part.splitn(2, |b| *b == b'-');
        let low = ends.next().and_then(port);
        let (Some(low), Some(high)) = (low, ends.next().map_or(low, port)) else {
            let what = match part {
                b"" => "a port is missing here".to_string(),
                part => format!(
                    "{} is neither a port from 1 to 65535 nor a range of them",
                    quote(part)
                ),
            };
            return Err(wrong(part, &what));
        };
        if low > high {
            return Err(wrong(
                part,
                &format!("{} ends before it begins", quote(part)),
            ));
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
    within(trim(text), 1..=65535).map(|port| port as u16)
}

/// Singly listed tripwires that are none, because they are ports of doors.
pub(super) fn futile(singles: &[Single], doors: &[Door]) -> impl Iterator<Item = Diagnostic> {
    singles.iter().filter_map(|(port, (line, column))| {
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
        Some(Diagnostic {
            line: *line,
            column: *column,
            knockd_wording: None,
            text: format!("Tripwire: port {port} is a step of door {name}, so it is no tripwire"),
        })
    })
}
