//! Local time: `TZ` rules of POSIX, zone database files (RFC 9636), and the calendar.
#![forbid(unsafe_code)]

use crate::sys::file::read_file;
use crate::sys::program;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Local date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, such as 2026.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: i32,
    /// Day of the month, 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 59.
    pub second: i32,
}

/// Seconds since 1970.
type Time = i64;

/// Seconds east of Greenwich.
type Offset = i32;

const DAY: Time = 86_400;

/// The offsets of local time from UTC, and when each applies. The default is UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    standard: Offset,
    summer: Option<Summer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summer {
    offset: Offset,
    start: YearlyChange,
    end: YearlyChange,
}

/// A moment in each year.
#[derive(Clone, Debug, PartialEq, Eq)]
struct YearlyChange {
    day: Day,
    /// Seconds after the start of the day, by the clock before the change.
    second: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Day {
    /// `Jn`: 1 to 365, never 29 February.
    Julian(i32),
    /// `n`: from 0.
    OfYear(i32),
    /// `Mm.w.d`: day of the week d (0 is Sunday) of week w (5: the last) of month m.
    OfMonth(i32, i32, i32),
}

/// The changes of a rule that names a summer time without its dates, as in glibc.
const USUAL_CHANGES: &[u8] = b",M3.2.0,M11.1.0";

impl Zone {
    /// Returns the zone of the machine: from `TZ`, /etc/localtime, or /etc/TZ, where OpenWrt and
    /// DD-WRT keep the rule. (musl does not read /etc/TZ, and its `localtime_r` is 7 kB on mipsel.)
    pub fn of_machine() -> Zone {
        let of_file = |path: &Path| Zone::of_file(&read_file(path).ok()?);
        let zone = match program::environment(c"TZ") {
            Some(tz) => {
                let tz = tz.strip_prefix(b":").unwrap_or(tz);
                let file = Path::new("/usr/share/zoneinfo").join(OsStr::from_bytes(tz));
                of_file(&file).or_else(|| Zone::of_rule(tz))
            }
            None => of_file(Path::new("/etc/localtime")).or_else(|| {
                let rule = read_file(Path::new("/etc/TZ")).ok()?;
                Zone::of_rule(rule.trim_ascii())
            }),
        };
        zone.unwrap_or_default()
    }

    /// Parses a zone database file of version 2 or later (2005). Uses only the rule at its end,
    /// which is for the future, and ignores earlier or temporary rules.
    pub fn of_file(bytes: &[u8]) -> Option<Zone> {
        let text = bytes.strip_prefix(b"TZif")?.strip_suffix(b"\n")?;
        Zone::of_rule(text.rsplit(|byte| *byte == b'\n').next()?)
    }

    /// Parses a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub fn of_rule(text: &[u8]) -> Option<Zone> {
        let mut rest = RuleText(text);
        rest.name()?;
        let standard = -rest.clock()?;
        if rest.0.is_empty() {
            return Some(Zone {
                standard,
                summer: None,
            });
        }
        rest.name()?;
        let has_offset = !matches!(rest.0.first(), None | Some(b','));
        let offset = if has_offset {
            -rest.clock()?
        } else {
            standard + 3600
        };
        if rest.0.is_empty() {
            rest = RuleText(USUAL_CHANGES);
        }
        let summer = Summer {
            offset,
            start: rest.change()?,
            end: rest.change()?,
        };
        rest.0.is_empty().then_some(Zone {
            standard,
            summer: Some(summer),
        })
    }

    /// Converts a time to local time.
    pub fn local(&self, time: Time) -> LocalTime {
        let time = time + Time::from(self.offset(time));
        let (year, month, day) = date(days(time));
        let second = (time - days(time) as Time * DAY) as i32;
        LocalTime {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    fn offset(&self, time: Time) -> Offset {
        let Some(summer) = &self.summer else {
            return self.standard;
        };
        let (year, _, _) = date(days(time + Time::from(self.standard)));
        let start = summer.start.in_year(year) - Time::from(self.standard);
        let end = summer.end.in_year(year) - Time::from(summer.offset);
        let is_summer = match start < end {
            true => (start..end).contains(&time),
            false => !(end..start).contains(&time),
        };
        if is_summer {
            summer.offset
        } else {
            self.standard
        }
    }
}

impl YearlyChange {
    /// Returns its time in that year, by the clock before the change.
    fn in_year(&self, year: i32) -> Time {
        let first = day_number(year, 1, 1);
        let day = match self.day {
            Day::OfYear(day) => first + day,
            Day::Julian(day) => {
                let is_leap = day_number(year, 3, 1) - first == 60;
                first + day - 1 + i32::from(is_leap && day >= 60)
            }
            Day::OfMonth(month, week, weekday) => {
                let first = day_number(year, month, 1);
                // 1 January 1970 was a Thursday.
                let day = first + (weekday - (first + 4)).rem_euclid(7) + 7 * (week - 1);
                let end = match month {
                    12 => day_number(year + 1, 1, 1),
                    _ => day_number(year, month + 1, 1),
                };
                if day < end { day } else { day - 7 }
            }
        };
        Time::from(day) * DAY + Time::from(self.second)
    }
}

/// The unparsed rest of a rule.
struct RuleText<'a>(&'a [u8]);

impl RuleText<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let rest = self.0.split_first().filter(|(first, _)| **first == byte);
        if let Some((_, rest)) = rest {
            self.0 = rest;
        }
        rest.is_some()
    }

    /// Skips leading bytes that fit. Returns their number.
    fn take_while(&mut self, fits: impl Fn(&u8) -> bool) -> usize {
        let length = self.0.iter().take_while(|byte| fits(byte)).count();
        self.0 = self.0.get(length..).unwrap_or_default();
        length
    }

    /// Skips a name of three letters or more, or anything in `<>`.
    fn name(&mut self) -> Option<()> {
        if self.take(b'<') {
            self.take_while(|byte| *byte != b'>');
            return self.take(b'>').then_some(());
        }
        (self.take_while(u8::is_ascii_alphabetic) >= 3).then_some(())
    }

    fn number(&mut self) -> Option<i32> {
        let text = self.0;
        let length = self.take_while(u8::is_ascii_digit);
        let digits = text
            .get(..length)
            .filter(|digits| (1..=3).contains(&digits.len()))?;
        Some(
            digits
                .iter()
                .fold(0, |number, digit| 10 * number + i32::from(digit - b'0')),
        )
    }

    /// Parses `[+-]h[:m[:s]]`, in seconds.
    fn clock(&mut self) -> Option<i32> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let _ = sign == 1 && self.take(b'+');
        let mut seconds = 3600 * self.number()?;
        for unit in [60, 1] {
            if self.take(b':') {
                seconds += unit * self.number()?;
            }
        }
        Some(sign * seconds)
    }

    /// Parses `,DAY[/TIME]`.
    fn change(&mut self) -> Option<YearlyChange> {
        self.take(b',').then_some(())?;
        let day = if self.take(b'M') {
            let month = self.number().filter(|month| (1..=12).contains(month))?;
            let week = self.take(b'.').then(|| self.number())??;
            let weekday = self.take(b'.').then(|| self.number())??;
            ((1..=5).contains(&week) && weekday <= 6)
                .then_some(Day::OfMonth(month, week, weekday))?
        } else if self.take(b'J') {
            Day::Julian(self.number()?)
        } else {
            Day::OfYear(self.number()?)
        };
        let second = if self.take(b'/') {
            self.clock()?
        } else {
            2 * 3600
        };
        Some(YearlyChange { day, second })
    }
}

/// Complete days since 1970.
fn days(time: Time) -> i32 {
    time.div_euclid(DAY) as i32
}

/// Days in 400 years.
const ERA: i32 = 146_097;

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i32 = 719_468;

/// Converts a day since 1970 to year, month and day. Its years begin in March, so that a leap day
/// is the last of one.
fn date(day: i32) -> (i32, i32, i32) {
    let day = day + EPOCH;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (400 * era + year + next, month, day)
}

/// Converts a date to the day since 1970.
fn day_number(year: i32, month: i32, day: i32) -> i32 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * month + 2) / 5 + day - 1;
    era * ERA + 365 * year + year / 4 - year / 100 + day - EPOCH
}

#[cfg(test)]
mod tests;
