//! A temporary folder for one daemon: its config, lists, state, and what its commands write.

use super::is_original;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A temporary folder that is removed at the end.
pub struct Home(PathBuf);

impl Home {
    /// A new, empty folder.
    pub fn new() -> Home {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kt-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("temporary folder");
        Home(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("write");
        self.path(name)
    }

    /// What a file says; empty if there is none yet.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes `knockd.conf` with these doors, our `[options]`, and the door `fence` (see `Scene::fence`).
    /// `@HOME@` in the doors becomes the path of this folder.
    pub fn config(&self, doors: &str) -> PathBuf {
        self.config_with_options("", doors)
    }

    /// The same with more lines in `[options]`.
    pub fn config_with_options(&self, options: &str, doors: &str) -> PathBuf {
        let state = match is_original() {
            true => String::new(),
            false => format!("StateDir = {}\n", self.path("state").display()),
        };
        let doors = doors.replace("@HOME@", &self.0.display().to_string());
        let text = format!("[options]\n{state}{options}\n[fence]\nsequence = 9:udp\n\n{doors}");
        self.write("knockd.conf", &text)
    }

    /// The folder of the daemon with that config, as it stands in its state folder.
    pub fn instance(&self) -> PathBuf {
        instance_in(&self.path("state"))
    }
}

/// The folder of the one daemon that has this state folder.
pub fn instance_in(state: &Path) -> PathBuf {
    let entries = fs::read_dir(state).expect("state folder");
    let is_instance = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("knockd.conf-")
    };
    let instance = entries.flatten().find(is_instance);
    instance.expect("the folder of a daemon").path()
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
