//! Compares the tables of docs/config.md and knockd.conf(5) with the options table. With
//! `UPDATE_DOCS=1` it writes them.

use super::describe::value;
use crate::config::options::{DOCUMENTED, Documented, Field, Options, Setting};
use crate::config::parse::door;

/// Returns the form of a value, with `code`, and the default.
fn value_and_default(row: &Documented) -> (String, String) {
    let (mut options, mut door) = (Options::default(), door(String::new(), 0));
    let slot = match row.row.place {
        Setting::Options(slot) => slot(&mut options),
        Setting::Door(slot) => slot(&mut door),
    };
    let form = match &slot {
        Field::Switch(_) => "none".into(),
        Field::Word(_, [(one, _), (other, _)]) => format!("`{one}`, `{other}`"),
        Field::Number(_, least, most, _) => format!("number from {least} to {most}"),
        Field::Seconds(_, most) => format!("seconds from 1 to {most}"),
        Field::Time(_) => "seconds".into(),
        Field::Path(_) | Field::List(_) => "path".into(),
        Field::Directory(_) => "absolute path".into(),
        Field::Command(_) => "shell command".into(),
        Field::Interfaces(_) => "names, `any`, `auto`".into(),
        Field::Ports(_) => "`auto`, `none`, ports and ranges".into(),
        Field::Networks(_) => "addresses and networks".into(),
        Field::Steps(_) => "steps".into(),
        Field::Flags(_) => "flags".into(),
        Field::Address(_) => "IP address".into(),
    };
    let value = match slot {
        Field::Word(is_second, words) => words[usize::from(*is_second)].0.to_string(),
        slot => value(slot),
    };
    let default = if value.is_empty() {
        row.row.absent.to_string()
    } else {
        value
    };
    (form, default)
}

fn is_option(row: &Documented) -> bool {
    matches!(row.row.place, Setting::Options(_))
}

/// Returns the rows of docs/config.md.
fn markdown(options: bool) -> String {
    let mut out = "| key (alias) | value | default | |\n|---|---|---|---|\n".to_string();
    for row in DOCUMENTED.iter().filter(|row| is_option(row) == options) {
        let (form, default) = value_and_default(row);
        let alias = match row.row.alias {
            "" => String::new(),
            alias => format!(" (`{alias}`)"),
        };
        let name = row.row.name;
        let doc = row.doc.replace("MATCHING below", "[Matching](#matching)");
        out += &format!("| `{name}`{alias} | {form} | {default} | {doc} |\n");
    }
    out
}

/// Converts text with `code` to lines of mdoc(7), one sentence per line.
fn mdoc(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            let code = part.replace("! ", "!\\& ");
            let escaped = if code == "!" { "!\\&" } else { &code };
            out += &format!("\n.Ql {escaped}");
            continue;
        }
        // Punctuation after code is an argument of its macro.
        let end = part
            .find(|c: char| !".,:;)".contains(c))
            .unwrap_or(part.len());
        let (punctuation, rest) = part.split_at(if index == 0 { 0 } else { end });
        for c in punctuation.chars() {
            out += &format!(" {c}");
        }
        assert!(
            index == 0 || rest.is_empty() || rest.starts_with(' '),
            "{text}"
        );
        let rest = rest.trim();
        if !rest.is_empty() {
            out += "\n";
            out += &rest.replace(". ", ".\n");
        }
    }
    out.trim_start().to_string()
}

/// Returns the items of knockd.conf(5).
fn man(options: bool) -> String {
    let mut out = String::new();
    for row in DOCUMENTED.iter().filter(|row| is_option(row) == options) {
        let (form, default) = value_and_default(row);
        out += &format!(".It Cm {}", row.row.name);
        let alias = row.row.alias;
        if !alias.is_empty() {
            out += &format!(" , {alias}");
        }
        let form = if form == "none" { "" } else { &form };
        out += if form.is_empty() { "" } else { " =" };
        for (index, part) in form.split('`').enumerate() {
            match part.trim() {
                "" => {}
                "," => out += " ,",
                text if index % 2 == 1 => out += &format!(" Cm {text}"),
                text => {
                    let (comma, text) = text.strip_prefix(", ").map_or(("", text), |t| (" ,", t));
                    let (text, end) = text.strip_suffix(',').map_or((text, ""), |t| (t, " ,"));
                    out += &format!("{comma} Ar {text}{end}");
                }
            }
        }
        out += &format!("\n{}\nDefault: {default}.\n", mdoc(row.doc));
    }
    out
}

/// Replaces the text between that comment and the next `end`.
fn replaced(text: &str, begin: &str, end: &str, by: &str) -> String {
    let start = text.find(begin).expect(begin) + begin.len();
    let length = text[start..].find(end).expect(end);
    [&text[..start], by, &text[start + length..]].concat()
}

#[test]
fn the_documents_have_the_table() {
    let source = "generated from src/config/options.rs";
    for (file, comment, table) in [
        (
            "docs/config.md",
            ("<!-- ", " -->\n"),
            markdown as fn(bool) -> String,
        ),
        ("files/man/knockd.conf.5", (".\\\" ", "\n"), man),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let committed = std::fs::read_to_string(&path).unwrap();
        let mut text = committed.clone();
        for (section, options) in [("[options]", true), ("doors", false)] {
            let (open, close) = comment;
            let begin = format!("{open}{section}: {source}{close}");
            text = replaced(&text, &begin, &format!("{open}end{close}"), &table(options));
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        } else {
            assert!(
                text == committed,
                "{file} is not what src/config/options.rs says: UPDATE_DOCS=1 cargo test --lib the_documents"
            );
        }
    }
}
