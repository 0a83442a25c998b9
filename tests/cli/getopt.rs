//! Compares the command-line parser with the C library's `getopt_long`: the same options in the
//! same order, the same operands after permutation, the same message. Only for glibc, because other
//! C libraries use other messages.
#![cfg(target_env = "gnu")]

use knockd_rs::cli::getopt::{Opt, scan};
use knockd_rs::cli::{self, KNOCK_OPTIONS, KNOCKD_OPTIONS, KnockdArgs, Outcome};
use knockd_rs::knock::Protocol;
use knockd_rs::resolve::Family;
use libc::{FILE, c_char, c_int};
use proptest::prelude::*;
use std::ffi::{CStr, CString, OsString};
use std::ptr;
use std::sync::Mutex;

#[repr(C)]
struct LongOption {
    name: *const c_char,
    has_arg: c_int,
    flag: *mut c_int,
    val: c_int,
}

unsafe extern "C" {
    fn getopt_long(
        argc: c_int,
        argv: *const *mut c_char,
        short: *const c_char,
        long: *const LongOption,
        index: *mut c_int,
    ) -> c_int;
    static mut optarg: *mut c_char;
    static mut optind: c_int;
    static mut stderr: *mut FILE;
}

/// getopt's variables are global to the process.
static GETOPT: Mutex<()> = Mutex::new(());

#[derive(Debug, PartialEq)]
struct Read {
    options: Vec<(char, Option<String>)>,
    operands: Vec<String>,
    error: Option<String>,
}

/// How the C library parses the words, up to the first error. `table` contains only options of 0.8.
fn by_libc(table: &[Opt], words: &[String]) -> Read {
    let _alone = GETOPT.lock().unwrap_or_else(|e| e.into_inner());
    let c = |text: &str| CString::new(text).unwrap();
    let mut short = String::new();
    let names: Vec<CString> = table.iter().map(|o| c(o.name)).collect();
    let mut long = Vec::new();
    for (option, name) in table.iter().zip(&names) {
        let letter = option.short.unwrap();
        short.push(letter);
        if option.takes_value {
            short.push(':');
        }
        let (has_arg, val) = (c_int::from(option.takes_value), letter as c_int);
        long.push(LongOption {
            name: name.as_ptr(),
            has_arg,
            flag: ptr::null_mut(),
            val,
        });
    }
    long.push(LongOption {
        name: ptr::null(),
        has_arg: 0,
        flag: ptr::null_mut(),
        val: 0,
    });
    let short = c(&short);
    let argv: Vec<CString> = std::iter::once("prog")
        .chain(words.iter().map(String::as_str))
        .map(c)
        .collect();
    let mut pointers: Vec<*mut c_char> = argv.iter().map(|a| a.as_ptr().cast_mut()).collect();
    pointers.push(ptr::null_mut());

    let mut read = Read {
        options: vec![],
        operands: vec![],
        error: None,
    };
    let (mut text, mut length) = (ptr::null_mut(), 0);
    // SAFETY: all strings, tables and pointers above live to the end of this function, argv ends
    // with a null pointer, and getopt only changes the order of the pointers. The lock keeps others
    // from its variables and from `stderr`, which glibc documents as assignable. `stderr` is
    // restored before the memory stream is closed, and the stream's text is freed once.
    unsafe {
        let terminal = stderr;
        stderr = libc::open_memstream(&mut text, &mut length);
        assert!(!stderr.is_null());
        optind = 0;
        loop {
            let found = getopt_long(
                argv.len() as c_int,
                pointers.as_ptr(),
                short.as_ptr(),
                long.as_ptr(),
                ptr::null_mut(),
            );
            if found == -1 {
                for &operand in &pointers[optind as usize..argv.len()] {
                    read.operands
                        .push(CStr::from_ptr(operand).to_str().unwrap().into());
                }
                break;
            }
            if found == c_int::from(b'?') {
                libc::fflush(stderr);
                let line = CStr::from_ptr(text).to_str().unwrap();
                let line = line
                    .strip_prefix("prog: ")
                    .and_then(|l| l.strip_suffix('\n'));
                read.error = Some(line.unwrap().into());
                break;
            }
            let value = optarg
                .as_ref()
                .map(|v| CStr::from_ptr(v).to_str().unwrap().into());
            read.options.push((found as u8 as char, value));
        }
        libc::fclose(stderr);
        stderr = terminal;
        libc::free(text.cast());
    }
    // optarg keeps its previous value for an option without a value.
    for (letter, value) in &mut read.options {
        if !table
            .iter()
            .any(|o| o.short == Some(*letter) && o.takes_value)
        {
            *value = None;
        }
    }
    read
}

fn by_us(table: &'static [Opt], words: &[String]) -> Read {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let scan = scan(table, &words);
    Read {
        options: scan
            .options
            .iter()
            .map(|(o, v)| (o.short.unwrap(), v.map(Into::into)))
            .collect(),
        operands: match scan.error {
            None => scan.operands.iter().map(|&w| w.into()).collect(),
            Some(_) => vec![],
        },
        error: scan.error.map(|e| e.to_string()),
    }
}

fn options_of_0_8(table: &'static [Opt]) -> &'static [Opt] {
    let count = table.iter().take_while(|o| o.short.is_some()).count();
    assert!(table[count..].iter().all(|o| o.short.is_none()));
    &table[..count]
}

/// Difficult words: clusters, abbreviations, attached and separate values, operands, and
/// repetitions of all of them. Letters after a dash are ASCII, because glibc prints only the first
/// byte of others and we print the whole letter. Never `--check` or `--strict`, which 0.8 did not
/// have, but words similar to them.
fn words(table: &'static [Opt]) -> impl Strategy<Value = Vec<String>> {
    let value = prop::sample::select(vec![
        "eth0", "", "-", "--", "=", "7", "-5", "300", "help", "--help", "x=y",
    ]);
    let value = value.prop_map(String::from).boxed();
    let letter = prop_oneof![
        12 => prop::sample::select(table.iter().filter_map(|o| o.short).collect::<Vec<_>>()),
        1 => prop::sample::select("z:;W=-?9 ".chars().collect::<Vec<_>>()),
    ];
    let cluster = (
        prop::collection::vec(letter, 1..4),
        prop::option::weighted(0.2, value.clone()),
    )
        .prop_map(|(letters, value)| {
            let letters: String = letters.into_iter().collect();
            format!("-{letters}{}", value.unwrap_or_default())
        });
    let ours = ["chec", "stric", "bogus"];
    let names: Vec<_> = options_of_0_8(table)
        .iter()
        .map(|o| o.name)
        .chain(ours)
        .collect();
    let long = (
        prop::sample::select(names),
        any::<prop::sample::Index>(),
        any::<bool>(),
        prop::option::weighted(0.3, value.clone()),
    )
        .prop_map(|(name, cut, whole, value)| {
            let name = if whole {
                name
            } else {
                &name[..cut.index(name.len())]
            };
            match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            }
        });
    let word = prop_oneof![4 => cluster, 4 => long, 4 => value, 1 => Just("--".into()), 1 => Just("\u{e9}".into())];
    prop::collection::vec(word, 0..8)
}

fn argv(words: &[String]) -> Vec<OsString> {
    std::iter::once("prog")
        .chain(words.iter().map(String::as_str))
        .map(OsString::from)
        .collect()
}

/// What both programs do before they interpret the options.
fn early<T>(read: &Read) -> Option<Outcome<T>> {
    for (letter, _) in &read.options {
        match letter {
            'V' => return Some(Outcome::Version),
            'h' => return Some(Outcome::Usage(None)),
            _ => {}
        }
    }
    read.error
        .as_ref()
        .map(|error| Outcome::Usage(Some(format!("prog: {error}"))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn knockd_reads_its_command_line_as_getopt_long_does(words in words(KNOCKD_OPTIONS)) {
        let read = by_libc(options_of_0_8(KNOCKD_OPTIONS), &words);
        prop_assert_eq!(&by_us(KNOCKD_OPTIONS, &words), &read);

        let mut args = KnockdArgs::default();
        for (letter, value) in &read.options {
            match letter {
                'v' => args.verbose = true,
                'D' => args.debug = true,
                'd' => args.daemon = true,
                'l' => args.lookup = true,
                '4' => args.only_ip_v4 = true,
                'i' => args.interface = value.clone(),
                'c' => args.config = value.clone().map(Into::into),
                'p' => args.pid_file = value.clone().map(Into::into),
                'g' => args.log_file = value.clone().map(Into::into),
                _ => {}
            }
        }
        prop_assert_eq!(cli::knockd(&argv(&words)), early(&read).unwrap_or(Outcome::Run(args)));
    }

    #[test]
    fn knock_reads_its_command_line_as_getopt_long_does(words in words(KNOCK_OPTIONS)) {
        let read = by_libc(KNOCK_OPTIONS, &words);
        prop_assert_eq!(&by_us(KNOCK_OPTIONS, &words), &read);

        let argv = argv(&words);
        let outcome = cli::knock(&argv);
        if let Some(early) = early(&read) {
            prop_assert_eq!(outcome, early);
        } else if read.operands.len() < 2 {
            prop_assert_eq!(outcome, Outcome::Usage(None));
        } else {
            let given = |letter| read.options.iter().any(|(l, _)| *l == letter);
            let last = |letters: &str| read.options.iter().rfind(|(l, _)| letters.contains(*l));
            // White space around a number does not matter.
            let delay = last("d").map_or("0", |(_, v)| v.as_deref().unwrap()).trim_ascii();
            match outcome {
                Outcome::Refuse(_) => prop_assert!(!matches!(delay.parse(), Ok(0..=i32::MAX))),
                Outcome::Run(args) => {
                    // Signed, because -0 is a valid delay.
                    let delay: i32 = delay.parse().unwrap();
                    prop_assert_eq!(args.delay, delay as u64);
                    prop_assert_eq!(args.verbose, given('v'));
                    prop_assert_eq!(args.family, match last("46") {
                        Some(('4', _)) => Family::V4,
                        Some(_) => Family::V6,
                        None => Family::Any,
                    });
                    prop_assert_eq!(args.host, &read.operands[0]);
                    let ports: Vec<&str> = args.steps.iter().map(|s| s.port).collect();
                    let texts = read.operands[1..].iter();
                    prop_assert_eq!(ports, texts.map(|t| t.split(':').next().unwrap()).collect::<Vec<_>>());
                    let udp = if given('u') { Protocol::Udp } else { Protocol::Tcp };
                    prop_assert!(args.steps.iter().all(|s| s.protocol == udp));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
