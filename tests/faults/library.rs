//! Builds and preloads the library that makes calls fail.

use crate::board::VARIABLE;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Makes `command` preload the library and use this board.
pub fn preload(command: &mut Command, board: &Path) {
    command.env("LD_PRELOAD", path()).env(VARIABLE, board);
}

/// The path of the library. The first call builds it.
pub fn path() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(build)
}

fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--locked", "--package", "faults-preload"])
        .args(["--message-format", "json-render-diagnostics"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(target)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "cargo could not build the library");
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let found = messages
        .map_while(Result::ok)
        .find_map(|message: serde_json::Value| {
            let is_library = message["target"]["name"] == "faults_preload";
            is_library.then(|| message["filenames"][0].as_str().map(PathBuf::from))?
        });
    found.expect("cargo names the library")
}
