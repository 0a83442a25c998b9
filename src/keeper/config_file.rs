//! Reads config files up to a size limit, and checks who else can write or read them.
#![forbid(unsafe_code)]

use crate::config::Diagnostic;
use crate::limits::MAX_CONFIG_BYTES;
use crate::sys::error::{Error, Result};
use crate::sys::file;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Why a file could not be read. Prints like knockd 0.8: `/etc/nosuch: No such file or directory`.
#[derive(Debug)]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub error: Error,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.to_string_lossy(), self.error)
    }
}

impl std::error::Error for ReadError {}

/// Reads the complete file. Fails if it cannot be opened or read, is a directory (which knockd 0.8
/// reads as an empty file), or is longer than [`MAX_CONFIG_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let read = file::open(path, libc::O_RDONLY, 0).and_then(|file| read_open(&file));
    read.map_err(|error| ReadError {
        path: path.to_path_buf(),
        error,
    })
}

/// Like [`read`], for an open file.
pub fn read_open(file: &File) -> Result<Vec<u8>> {
    let text = file::read_all(file.as_fd(), MAX_CONFIG_BYTES + 1)?;
    if text.len() > MAX_CONFIG_BYTES {
        const { assert!(MAX_CONFIG_BYTES == 1 << 20) };
        return Err(Error::Own("longer than 1 MiB, so it is not a config"));
    }
    Ok(text)
}

/// Warns about the mode and owner of a file, as stat() reports them. `why` says why its writers
/// matter.
pub fn mode_advice(mode: u32, uid: u32, why: &str) -> Option<Box<Diagnostic>> {
    let text = if mode & 0o022 != 0 {
        ["others can write this file, and ", why, "; chmod 600 it"].concat()
    } else if uid != 0 {
        format!("user {uid} owns this file, and {why}; chown it to root")
    } else if mode & 0o044 != 0 {
        "others can read this file, and the sequences are secret; chmod 600 it".to_string()
    } else {
        return None;
    };
    Some(Diagnostic::at((0, 0), &[&text]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_a_config_are_refused_with_their_name() {
        let dir = std::env::temp_dir().join(format!("knockd-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let refused = |path: &Path| {
            let reason = read(path).unwrap_err().to_string();
            reason
                .strip_prefix(&format!("{}: ", path.to_string_lossy()))
                .expect(&reason)
                .to_string()
        };
        assert_eq!(refused(&dir), "Is a directory");
        assert_eq!(refused(&dir.join("nosuch")), "No such file or directory");
        let file = dir.join("big");
        std::fs::write(&file, vec![b'#'; 10 << 20]).unwrap();
        assert_eq!(refused(&file), "longer than 1 MiB, so it is not a config");
        std::fs::write(&file, vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(read(&file).unwrap().len(), 1 << 20);
        // This file opens, but not even root can read its start.
        assert_eq!(refused(Path::new("/proc/self/mem")), "Input/output error");
        // Root can read a file despite its mode, but cannot follow a loop of links.
        let link = dir.join("loop");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        assert_eq!(refused(&link), "Too many levels of symbolic links");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        match std::fs::File::open(&file) {
            Ok(_) => println!("skipped the unreadable file: this user can read everything"),
            Err(_) => assert_eq!(refused(&file), "Permission denied"),
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
