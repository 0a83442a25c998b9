//! A temporary directory for one daemon: config, lists, state, and the files that its commands
//! write.

use super::is_original;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A temporary directory. Dropping it removes it.
pub struct Home(PathBuf);

impl Home {
    /// Creates an empty directory.
    pub fn new() -> Home {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kt-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("temporary directory");
        Home(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("write");
        self.path(name)
    }

    /// The contents of a file; empty if it does not exist.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes `knockd.conf` with these doors, the `[options]` of the tests, and the door `fence`
    /// (see `Scene::fence`). `@HOME@` in `doors` is replaced by this directory.
    pub fn config(&self, doors: &str) -> PathBuf {
        self.config_with_options("", doors)
    }

    /// Like [`Home::config`], with more lines in `[options]`.
    pub fn config_with_options(&self, options: &str, doors: &str) -> PathBuf {
        let state = match is_original() {
            true => String::new(),
            false => format!("StateDir = {}\n", self.path("state").display()),
        };
        let doors = doors.replace("@HOME@", &self.0.display().to_string());
        let text = format!("[options]\n{state}{options}\n[fence]\nsequence = 9:udp\n\n{doors}");
        self.write("knockd.conf", &text)
    }

    /// The state directory of the daemon with that config.
    pub fn instance(&self) -> PathBuf {
        instance_in(&self.path("state"))
    }
}

/// The directory of the only daemon that uses this StateDir.
pub fn instance_in(state: &Path) -> PathBuf {
    let entries = fs::read_dir(state).expect("state directory");
    let is_instance = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("knockd.conf-")
    };
    let instance = entries.flatten().find(is_instance);
    instance.expect("the directory of a daemon").path()
}

impl AsRef<Path> for Home {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
