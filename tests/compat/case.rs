//! Recorded cases: the input of knockd 0.8 and its reaction. `golden.json` has the first
//! recordings, `more.json` later ones. `ours.json` lists how this program differs, and the row of
//! docs/differences.md for it.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A daemon's reaction to a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether it started to listen.
    pub started: bool,
    /// Its exit code, or minus the signal that killed it; `None` if it still runs.
    pub exit: Option<i32>,
    /// Log lines about knocks.
    pub matcher_log: Vec<String>,
    /// Log lines about commands.
    pub command_log: Vec<String>,
    /// Other log lines, without `starting up` and the like.
    pub other_log: Vec<String>,
    pub stderr: Vec<String>,
    /// The config as `-D` prints it. Only in cases about configs.
    pub debug_config: Option<Vec<String>>,
    /// The contents of the file that the case is about.
    pub file: Option<String>,
}

/// A recorded case.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    /// C: contract. Q: quirk. B: bug of 0.8.
    pub class: char,
    pub title: String,
    pub conf: String,
    pub args: String,
    /// Files that exist before the start.
    pub files: Vec<(String, String)>,
    pub packets: String,
    /// Seconds to wait after the last packet.
    pub post: f64,
    /// The file to inspect afterwards.
    pub out: Option<String>,
    pub about_config: bool,
    pub recorded: Outcome,
    /// What a program without 0.8's bug logs.
    pub fixed: Option<Vec<String>>,
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|v| v.as_str().expect("a text").to_string())
        .collect()
}

impl Case {
    fn parse(value: &Value) -> Case {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
        let about_config = value["cfg"] == true;
        let files = value["files"].as_object().cloned().unwrap_or_default();
        Case {
            id: text("id"),
            class: text("cls").chars().next().expect("class"),
            title: text("title"),
            conf: text("conf"),
            args: value["args"].as_str().unwrap_or("-i s0").to_string(),
            files: files
                .into_iter()
                .map(|(name, text)| (name, text.as_str().expect("text").to_string()))
                .collect(),
            packets: text("packets"),
            post: value["post"].as_f64().unwrap_or(0.0),
            out: match &value["out"] {
                Value::Bool(true) => Some("out".to_string()),
                Value::String(name) => Some(name.clone()),
                _ => None,
            },
            about_config,
            recorded: Outcome {
                started: value["started"] == true,
                exit: value["exit"].as_i64().map(|code| code as i32),
                matcher_log: texts(&value["matcher_log"]),
                command_log: texts(&value["command_log"]),
                other_log: texts(&value["other_log"]),
                stderr: texts(&value["stderr"]),
                debug_config: about_config.then(|| texts(&value["debug_config"])),
                file: value["file"].as_str().map(String::from),
            },
            fixed: value["expect_fixed"]
                .as_array()
                .map(|_| texts(&value["expect_fixed"])),
        }
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    [include_str!("golden.json"), include_str!("more.json")]
        .iter()
        .flat_map(|text| serde_json::from_str::<Vec<Value>>(text).expect("cases"))
        .map(|value| Case::parse(&value))
        .collect()
}

/// How this program differs in one case.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// The rows of docs/differences.md that explain it.
    pub rows: Vec<String>,
    /// The parts of the outcome that differ with `--strict`.
    strict: Map<String, Value>,
    /// Whether it prints `FILE:LINE:COLUMN: text`, which the comparison ignores.
    pub tells_places: bool,
    /// The doors that open with the default matching, if they differ from `--strict`: `SOURCE:
    /// DOOR` in order.
    pub default_opens: Option<Vec<String>>,
}

/// The differences by case ID.
pub fn differences() -> BTreeMap<String, Difference> {
    let all: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("ours.json")).expect("ours.json");
    let parse = |value: Value| Difference {
        rows: texts(&value["rows"]),
        tells_places: value["tells_places"] == true,
        strict: value["strict"].as_object().cloned().unwrap_or_default(),
        default_opens: value["default_opens"]
            .as_array()
            .map(|_| texts(&value["default_opens"])),
    };
    all.into_iter()
        .map(|(id, value)| (id, parse(value)))
        .collect()
}

/// What this program has to do with `--strict`.
pub fn expected_of_ours(case: &Case, difference: Option<&Difference>) -> Outcome {
    let mut expected = case.recorded.clone();
    if let Some(fixed) = &case.fixed {
        expected.matcher_log = fixed.clone();
    }
    for (key, value) in difference.iter().flat_map(|difference| &difference.strict) {
        match key.as_str() {
            "started" => expected.started = value == true,
            "exit" => expected.exit = value.as_i64().map(|code| code as i32),
            "matcher_log" => expected.matcher_log = texts(value),
            "command_log" => expected.command_log = texts(value),
            "other_log" => expected.other_log = texts(value),
            "stderr" => expected.stderr = texts(value),
            "debug_config" => expected.debug_config = Some(texts(value)),
            "file" => expected.file = value.as_str().map(String::from),
            _ => panic!("{}: ours.json has {key}", case.id),
        }
    }
    let same = |key: &str| match key {
        "started" => expected.started == case.recorded.started,
        "exit" => expected.exit == case.recorded.exit,
        "matcher_log" => expected.matcher_log == case.recorded.matcher_log,
        "command_log" => expected.command_log == case.recorded.command_log,
        "other_log" => expected.other_log == case.recorded.other_log,
        "stderr" => expected.stderr == case.recorded.stderr,
        "debug_config" => expected.debug_config == case.recorded.debug_config,
        _ => expected.file == case.recorded.file,
    };
    for key in difference
        .iter()
        .flat_map(|difference| difference.strict.keys())
    {
        assert!(
            !same(key),
            "{}: {key} in ours.json is no difference",
            case.id
        );
        // The text of libpcap's errors cannot be ours. Nothing else in the contract may differ.
        assert!(
            case.class != 'C' || key == "stderr" || key == "debug_config",
            "{}: {key} is contract",
            case.id
        );
        assert!(
            case.fixed.is_none() || key != "matcher_log",
            "{}: expect_fixed says it",
            case.id
        );
    }
    expected
}

impl Outcome {
    /// Converts it to JSON in the format of `golden.json`.
    pub fn json(&self) -> Value {
        let mut out = json!({
            "started": self.started,
            "exit": self.exit,
            "matcher_log": self.matcher_log,
            "command_log": self.command_log,
            "stderr": self.stderr,
        });
        if !self.other_log.is_empty() {
            out["other_log"] = json!(self.other_log);
        }
        if let Some(lines) = &self.debug_config {
            out["debug_config"] = json!(lines);
        }
        if let Some(text) = &self.file {
            out["file"] = json!(text);
        }
        out
    }
}
