//! The conventions of glibc's `getopt_long`, with which knockd 0.8 reads its command line: clusters
//! (`-dc FILE`), values in the same word (`-ieth0`, `--config=FILE`), unique abbreviations,
//! operands between options, `--`. The messages are glibc's own, because scripts and users know
//! them.
#![forbid(unsafe_code)]

/// An option of a program.
#[derive(Debug, PartialEq, Eq)]
pub struct Opt {
    /// The long name with its dashes.
    pub flag: &'static str,
    /// The long name without them.
    pub name: &'static str,
    /// The short name. `None` marks an option that 0.8 did not have: it must be spelled out, so
    /// that every abbreviation keeps its meaning.
    pub short: Option<char>,
    /// Whether it takes a value.
    pub takes_value: bool,
}

impl Opt {
    /// Creates an option of 0.8 without a value.
    pub const fn switch(flag: &'static str, short: char) -> Opt {
        Opt::ours(flag).of_0_8(short)
    }

    /// An option of 0.8 with a value.
    pub const fn value(flag: &'static str, short: char) -> Opt {
        Opt::ours_with_value(flag).of_0_8(short)
    }

    /// Creates a switch of ours.
    pub const fn ours(flag: &'static str) -> Opt {
        Opt {
            flag,
            name: flag.split_at(2).1,
            short: None,
            takes_value: false,
        }
    }

    /// Creates an option of ours with a value.
    pub const fn ours_with_value(flag: &'static str) -> Opt {
        let mut option = Opt::ours(flag);
        option.takes_value = true;
        option
    }

    const fn of_0_8(mut self, short: char) -> Opt {
        self.short = Some(short);
        self
    }
}

/// An option on the command line, with its value if it takes one.
pub type GivenOption<'a> = (&'static Opt, Option<&'a str>);

/// A scanned command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The options in order, including repeats.
    pub options: Vec<GivenOption<'a>>,
    /// The operands in order. Only complete if `error` is `None`.
    pub operands: Vec<&'a str>,
    /// The first error in glibc's words, without `program: `. Scanning stops there, because the
    /// programs exit there.
    pub error: Option<String>,
}

/// Scans the words after the program's name as `getopt_long` does with that table, up to the first
/// error. The order of the table only matters in the message about an ambiguous abbreviation.
pub fn scan<'a>(table: &'static [Opt], args: &[&'a str]) -> Scan<'a> {
    let mut scan = Scan::default();
    let mut args = args.iter().copied();
    while let Some(word) = args.next() {
        let read = if word == "--" {
            scan.operands.extend(args);
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            long_option(table, long, &mut args).map(|given| scan.options.push(given))
        } else if word.len() > 1 && word.starts_with('-') {
            cluster(table, &word[1..], &mut args, &mut scan.options)
        } else {
            scan.operands.push(word);
            Ok(())
        };
        if let Err(error) = read {
            scan.error = Some(error);
            break;
        }
    }
    scan
}

/// Returns an argv for a plain parser: each option once, the last repeat, spelled out, with its
/// value in the next word.
pub fn canonical<'a>(options: &[GivenOption<'a>]) -> Vec<&'a str> {
    let mut argv = Vec::new();
    for (i, (option, value)) in options.iter().enumerate() {
        if options[i + 1..]
            .iter()
            .all(|(later, _)| later.name != option.name)
        {
            argv.push(option.flag);
            argv.extend(*value);
        }
    }
    argv
}

/// Handles `NAME` or `NAME=VALUE` without the dashes.
fn long_option<'a>(
    table: &'static [Opt],
    word: &'a str,
    rest: &mut dyn Iterator<Item = &'a str>,
) -> Result<GivenOption<'a>, String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let option = match table.iter().find(|o| o.name == name) {
        Some(option) => option,
        None => abbreviated(table, name, word)?,
    };
    match (option.takes_value, value) {
        (false, Some(_)) => Err(about(option.flag, "doesn't allow an argument")),
        (false, None) => Ok((option, None)),
        (true, Some(value)) => Ok((option, Some(value))),
        (true, None) => {
            let value = rest.next();
            let value = value.ok_or_else(|| about(option.flag, "requires an argument"))?;
            Ok((option, Some(value)))
        }
    }
}

/// Finds the option of 0.8 with that prefix. `word` is the complete word for messages.
fn abbreviated(table: &'static [Opt], name: &str, word: &str) -> Result<&'static Opt, String> {
    let fits = |o: &&Opt| o.short.is_some() && o.name.starts_with(name);
    let mut candidates = table.iter().filter(fits);
    match (candidates.next(), candidates.next()) {
        (None, _) => Err(["unrecognized option '--", word, "'"].concat()),
        (Some(only), None) => Ok(only),
        _ => {
            let mut error = ["option '--", word, "' is ambiguous; possibilities:"].concat();
            for option in table.iter().filter(fits) {
                for part in [" '", option.flag, "'"] {
                    error.push_str(part);
                }
            }
            Err(error)
        }
    }
}

fn about(flag: &str, what: &str) -> String {
    ["option '", flag, "' ", what].concat()
}

fn about_letter(what: &str, letter: char) -> String {
    format!("{what} -- '{letter}'")
}

/// Handles the letters of `-dcFILE` without the dash. An option with a value takes the rest of the
/// word, or the next one.
fn cluster<'a>(
    table: &'static [Opt],
    letters: &'a str,
    rest: &mut dyn Iterator<Item = &'a str>,
    options: &mut Vec<GivenOption<'a>>,
) -> Result<(), String> {
    let mut left = letters.chars();
    while let Some(letter) = left.next() {
        let option = table
            .iter()
            .find(|o| o.short == Some(letter))
            .ok_or_else(|| about_letter("invalid option", letter))?;
        if !option.takes_value {
            options.push((option, None));
            continue;
        }
        let value = match left.as_str() {
            "" => {
                let missing = || about_letter("option requires an argument", letter);
                rest.next().ok_or_else(missing)?
            }
            joined => joined,
        };
        options.push((option, Some(value)));
        break;
    }
    Ok(())
}
