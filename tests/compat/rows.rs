//! Checks docs/differences.md against the suite: fails for a row without a case and for a differing
//! case without a row.

use crate::{case, life, wild};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The generated cases explain differences by these rows.
pub const GENERATED: [&str; 3] = ["D-MAT-01", "D-MAT-02", "D-MAT-08"];

/// The tests of each row, from its last column.
fn rows() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md");
    let text = fs::read_to_string(path).expect("docs/differences.md");
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let id = cells[0];
        if id == "id" || id.starts_with("--") {
            continue;
        }
        assert!(id.starts_with("D-"), "a row without an id: {line}");
        let shown = cells.last().expect("a cell").split(", ");
        let shown = shown
            .map(|name| name.trim_matches('`').to_string())
            .filter(|name| !name.is_empty());
        let known = rows.insert(id.to_string(), shown.collect());
        assert!(known.is_none(), "{id} stands twice");
    }
    rows
}

/// The rows that the suite's tests show.
fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |row: &str, case: String| {
        shown.entry(row.to_string()).or_default().insert(case);
    };
    let cases: BTreeSet<String> = case::all().into_iter().map(|case| case.id).collect();
    for (id, difference) in case::differences() {
        assert!(cases.contains(&id), "ours.json has {id}, which is no case");
        assert!(!difference.rows.is_empty(), "ours.json: {id} has no row");
        difference.rows.iter().for_each(|row| add(row, id.clone()));
    }
    for (name, rows, _) in life::tests() {
        rows.iter()
            .for_each(|row| add(row, format!("life::{name}")));
    }
    for (name, row) in wild::UNLIKE {
        add(row, format!("wild::{name}"));
    }
    GENERATED
        .iter()
        .for_each(|row| add(row, "generated".to_string()));
    shown
}

/// Whether another test program has this test: `PROGRAM::FUNCTION`, or the name of the program.
fn is_elsewhere(name: &str) -> bool {
    let (program, function) = name.split_once("::").unwrap_or((name, "main"));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(program);
    sources(&directory).iter().any(|path| {
        let text = fs::read_to_string(path).expect("source");
        text.contains(&format!("fn {function}("))
    })
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

pub fn every_difference_is_shown() {
    let (rows, shown) = (rows(), shown());
    let mut wrong = Vec::new();
    for (row, cases) in &shown {
        for case in cases {
            if !rows.get(row).is_some_and(|named| named.contains(case)) {
                wrong.push(format!("{case} shows {row}, whose row does not name it"));
            }
        }
    }
    for (row, named) in &rows {
        if named.is_empty() {
            wrong.push(format!("nothing shows {row}"));
        }
        for name in named {
            let ours = shown.get(row).is_some_and(|cases| cases.contains(name));
            let of_suite = !name.contains("::")
                || ["life::", "wild::"]
                    .iter()
                    .any(|part| name.starts_with(part));
            if !ours && (of_suite || !is_elsewhere(name)) {
                wrong.push(format!("{row} names {name}, which does not show it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
