//! The command lines of both programs: argv in, a request out. Only [`Outcome::settle`] prints.
//!
//! argh alone refuses much of what knockd 0.8 accepts (`-dc FILE`, `--config=FILE`, `--conf`,
//! repeats), so [`getopt`] first makes one canonical argv.
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

/// The request of a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Run with these arguments.
    Run(T),
    /// `-V`: print the version, exit 0.
    Version,
    /// `-h`, or a wrong command line, whose error goes to stderr first. Usage goes to stdout.
    Usage(Option<String>),
    /// An error: prints this line on stderr and exits with 1.
    Refuse(String),
}

/// The texts of a program.
#[derive(Debug)]
pub struct Program {
    /// Two lines: name and version, licence.
    pub version: &'static str,
    /// The help text.
    pub usage: &'static str,
    /// The exit status after the help text: in knockd 0.8 it is 0 even after an error, in knock 1
    /// even after `-h`.
    pub usage_status: u8,
}

impl<T> Outcome<T> {
    /// Returns the arguments, or prints the text and exits.
    pub fn settle(self, program: &Program) -> T {
        let (text, status) = match self {
            Outcome::Run(args) => return args,
            Outcome::Version => (program.version, 0),
            Outcome::Usage(error) => {
                if let Some(error) = error {
                    eprint_line(&error);
                }
                (program.usage, program.usage_status)
            }
            Outcome::Refuse(error) => fail(&error),
        };
        print(text);
        program::exit(status.into())
    }
}

/// Prints an error and exits with 1.
pub fn fail(why: &str) -> ! {
    eprint_line(why);
    program::exit(ExitCode::FAILURE)
}

/// Prints text on standard output. A closed pipe (`knockd -h | head -1`) is not an error.
pub(crate) fn print(text: &str) {
    let _ = write_all(program::output().as_fd(), text.as_bytes());
}

/// Prints a line on stderr. Ignores errors, because there is nowhere to report them.
pub fn eprint_line(line: &str) {
    let _ = write_all(program::error().as_fd(), [line, "\n"].concat().as_bytes());
}

/// Returns an argv in UTF-8: the program's name and the other words; or the number of the word that
/// is not UTF-8.
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

/// Handles what precedes the options: `-V` or `-h`, whichever comes first, then the first error.
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

/// The options of both programs, filled by argh. [`getopt`] accepts only those of the program.
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

/// Fills the struct with argh. It cannot refuse what [`getopt::canonical`] returns; if it does, its
/// message is shown.
fn fill(program: &str, options: &[getopt::GivenOption]) -> Result<Typed, String> {
    use argh::FromArgs;
    let argv = getopt::canonical(options);
    Typed::from_args(&[program], &argv).map_err(|early| early.output)
}
