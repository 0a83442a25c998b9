//! Checks the structure of src/: few top-level modules, imports in one direction, and a document
//! that names every module.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules in the order of lib.rs. Each may import only from those before it.
fn modules() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("lib.rs");
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod "));
    names
        .map(|name| name.trim_end_matches(';').to_string())
        .collect()
}

/// All files in src/.
fn files() -> Vec<PathBuf> {
    fn add(directory: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => add(&path, all),
                false => all.push(path),
            }
        }
    }
    let mut all = Vec::new();
    add(Path::new("src"), &mut all);
    all.sort();
    all
}

/// The code of a file without tests and comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a file");
    let text = match text.split_once("#[cfg(test)]\nmod tests {") {
        Some((code, _)) => code,
        None => &text,
    };
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The top-level modules that `code` imports from.
fn imports(code: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let after = code.split("crate::").skip(1);
    after
        .map(|rest| rest.chars().take_while(|c| is_of_name(*c)).collect())
        .collect()
}

/// The top-level module that a file belongs to; `lib` or `main` for those two files.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix("src").expect("of src");
    let first = below.iter().next().and_then(OsStr::to_str).expect("a name");
    first.trim_end_matches(".rs").to_string()
}

fn is_test(file: &Path) -> bool {
    file.iter()
        .any(|part| part == "tests" || part == "tests.rs")
        || file.ends_with("docs.rs")
}

#[test]
fn each_module_imports_only_from_those_above_it() {
    let modules = modules();
    assert!((10..=16).contains(&modules.len()), "{modules:?}");
    let mut seen = 0;
    for file in files().iter().filter(|file| !is_test(file)) {
        let module = module_of(file);
        if module == "main" || module == "lib" {
            continue;
        }
        let own = modules.iter().position(|name| *name == module);
        let own = own.unwrap_or_else(|| panic!("lib.rs does not list {module}"));
        for import in imports(&code(file)) {
            let at = modules.iter().position(|name| *name == import);
            assert!(at.is_some_and(|at| at <= own), "{file:?} imports {import}");
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} imports were read");
}

#[test]
fn what_decides_imports_no_system_call_and_no_config() {
    const PURE: [&str; 11] = [
        "src/util/",
        "src/knock/",
        "src/capture/filter/",
        "src/capture/packet.rs",
        "src/keys/",
        "src/matcher/",
        "src/lease/",
        "src/ipc/",
        "src/resolve/dns.rs",
        "src/resolve/host_files.rs",
        "src/config/",
    ];
    let mut found = BTreeSet::new();
    for file in files() {
        let path = file.to_str().unwrap();
        let Some(pure) = PURE.iter().find(|start| path.starts_with(**start)) else {
            continue;
        };
        found.insert(*pure);
        let imports = imports(&code(&file));
        assert!(!imports.contains("sys"), "{path} imports sys");
        if *pure != "src/config/" {
            assert!(!imports.contains("config"), "{path} imports config");
        }
    }
    assert_eq!(found.len(), PURE.len(), "{found:?}");
}

#[test]
fn the_document_names_every_module() {
    let document = fs::read_to_string("docs/architecture.md").unwrap();
    for module in modules() {
        let is_named = ["/", ".rs"].iter().any(|end| {
            document
                .lines()
                .any(|line| line.starts_with(&format!("| `{module}{end}`")))
        });
        assert!(is_named, "docs/architecture.md has no row for {module}");
    }
}

#[test]
fn no_two_types_have_one_name() {
    let mut seen = BTreeMap::new();
    for file in files() {
        if is_test(&file) || file.starts_with("src/sys/faults") {
            continue;
        }
        for line in code(&file).lines() {
            let mut rest = line
                .split_whitespace()
                .skip_while(|word| word.starts_with("pub"));
            if !matches!(rest.next(), Some("struct" | "enum" | "type" | "trait")) {
                continue;
            }
            let word = rest.next().unwrap_or_default();
            let name = word
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or_default();
            if let Some(other) = seen.insert(name.to_string(), file.clone()) {
                panic!("{name} is in {other:?} and in {file:?}");
            }
        }
    }
    assert!(seen.len() > 100, "only {} types were read", seen.len());
}

#[test]
fn files_are_short() {
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        assert!(lines <= 500, "{file:?} has {lines} lines");
    }
}
