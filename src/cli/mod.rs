//! The command lines of both programs: argv in, what to do out. Nothing here prints but [`Outcome::settle`].
//!
//! argh alone refuses much of what knockd 0.8 takes (`-dc FILE`, `--config=FILE`, `--conf`, repeats), so [`getopt`]
//! makes one canonical argv first.
#![forbid(unsafe_code)]

pub mod getopt;
mod knock;
mod knockd;

pub use knock::{KNOCK, KnockArgs, KnockStep, OPTIONS as KNOCK_OPTIONS, knock};
pub use knockd::{KNOCKD, KnockdArgs, OPTIONS as KNOCKD_OPTIONS, default_config, knockd};

use crate::sys::file::write_all;
use crate::sys::program::{self, ExitCode};
use crate::util::quote::quote;
use std::ffi::OsString;
use std::os::fd::AsFd;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Run with these arguments.
    Run(T),
    /// `-V`: print the version, exit 0.
    Version,
    /// `-h`, or a wrong command line and the line that says so on stderr first. Usage goes to stdout.
    Usage(Option<String>),
    /// This line on stderr, exit 1.
    Refuse(String),
}

/// What a program says of itself.
#[derive(Debug)]
pub struct Program {
    /// Two lines: name and version, licence.
    pub version: &'static str,
    /// The help text.
    pub usage: &'static str,
    /// The exit status after the help text: knockd 0.8 has 0 even after an error, knock 1 even after `-h`.
    pub usage_status: u8,
}

impl<T> Outcome<T> {
    /// The arguments to run with; or prints the text and exits.
    pub fn settle(self, program: &Program) -> T {
        let (text, status) = match self {
            Outcome::Run(args) => return args,
            Outcome::Version => (program.version, 0),
            Outcome::Usage(error) => {
                if let Some(error) = error {
                    say(&error);
                }
                (program.usage, program.usage_status)
            }
            Outcome::Refuse(error) => fail(&error),
        };
        print(text);
        program::exit(status.into())
    }
}

/// Prints why the program cannot go on, and exits with 1.
pub fn fail(why: &str) -> ! {
    say(why);
    program::exit(ExitCode::FAILURE)
}

/// Text on standard output. A reader that has gone (`knockd -h | head -1`) is no reason to fail.
pub(crate) fn print(text: &str) {
    let _ = write_all(program::output().as_fd(), text.as_bytes());
}

/// A line on stderr; where that is closed there is nobody to tell.
pub fn say(line: &str) {
    let _ = write_all(program::error().as_fd(), [line, "\n"].concat().as_bytes());
}

/// An argv in UTF-8: the program's name and the words behind it; or the number of the word that is not.
struct Argv<'a> {
    program: String,
    args: Vec<&'a str>,
}

impl<'a> Argv<'a> {
    fn new(argv: &'a [OsString], default_name: &str) -> Result<Argv<'a>, String> {
        let program = match argv.first() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => default_name.to_string(),
        };
        let mut args = Vec::new();
        for word in argv.iter().skip(1) {
            match word.to_str() {
                Some(word) => args.push(word),
                None => {
                    let word = quote(word.as_encoded_bytes());
                    return Err([&program, ": argument ", &word, " is not valid UTF-8"].concat());
                }
            }
        }
        Ok(Argv { program, args })
    }
}

/// What is decided before the options are looked at: `-V` or `-h`, whichever comes first, then the first error.
fn early<T>(scan: &getopt::Scan, program: &str) -> Option<Outcome<T>> {
    let asked = scan
        .options
        .iter()
        .find_map(|(option, _)| match option.short {
            Some('V') => Some(Outcome::Version),
            Some('h') => Some(Outcome::Usage(None)),
            _ => None,
        });
    let wrong = || {
        let error = scan.error.as_ref()?;
        Some(Outcome::Usage(Some([program, ": ", error].concat())))
    };
    asked.or_else(wrong)
}

/// What argh fills: the options of both programs. [`getopt`] lets each have its own only.
#[derive(argh::FromArgs)]
/// options
struct Typed {
    #[argh(switch)]
    /// option -v
    verbose: bool,
    #[argh(switch)]
    /// option -D
    debug: bool,
    #[argh(switch)]
    /// option -d
    daemon: bool,
    #[argh(switch)]
    /// option -l
    lookup: bool,
    #[argh(option)]
    /// option -i
    interface: Option<String>,
    #[argh(option)]
    /// option -c
    config: Option<String>,
    #[argh(option)]
    /// option -p
    pidfile: Option<String>,
    #[argh(option)]
    /// option -g
    logfile: Option<String>,
    #[argh(switch)]
    /// option -4 of knockd
    only_ip_v4: bool,
    #[argh(switch)]
    /// option --check
    check: bool,
    #[argh(switch)]
    /// option --strict
    strict: bool,
    #[argh(switch)]
    /// option --status
    status: bool,
    #[argh(switch)]
    /// option --json
    json: bool,
    #[argh(option)]
    /// option --close
    close: Option<String>,
    #[argh(switch)]
    /// option -u
    udp: bool,
    #[argh(option)]
    /// option -d of knock
    delay: Option<String>,
    #[argh(switch)]
    /// option -4
    #[allow(dead_code)]
    // argh must know it; the last of -4 and -6 counts, so knock looks for it itself
    ipv4: bool,
    #[argh(switch)]
    /// option -6
    #[allow(dead_code)] // as -4
    ipv6: bool,
}

/// Has argh fill the struct. It cannot refuse what [`getopt::canonical`] made; if it did, its words are shown.
fn fill(program: &str, options: &[getopt::GivenOption]) -> Result<Typed, String> {
    use argh::FromArgs;
    let argv = getopt::canonical(options);
    Typed::from_args(&[program], &argv).map_err(|early| early.output)
}
