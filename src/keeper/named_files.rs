//! Opening the files that a config names. The keeper is root, and in a folder that others can write to somebody may have put a link
//! there, to have it write to another file.
#![forbid(unsafe_code)]

use crate::path::{folder_of, parts_backwards};
use crate::sys::error::with_text;
use crate::sys::file;
use crate::sys::privileges::user;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// As the kernel's own bound (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Opens an absolute path as [`file::open`] does. A link is followed only from a folder that nobody but root and this user can write to. A FIFO without a
/// reader is an error and holds nothing up.
pub fn open(path: &Path, flags: libc::c_int, mode: u32) -> io::Result<File> {
    let (path, careful) = match resolve(path, Links::Careful)? {
        Resolved::Plain(path) => (path, libc::O_NONBLOCK | libc::O_NOFOLLOW),
        Resolved::OfTheKernel(path) => (path, libc::O_NONBLOCK),
    };
    let file = file::open(&path, flags | careful, mode)?;
    let found = file.metadata()?;
    if found.is_file() && found.nlink() > 1 && is_exposed(folder_of(&path)) {
        return Err(refused("a hard link", &path));
    }
    Ok(file)
}

/// The path of a folder without the links on the way, where each of them may be followed.
pub fn folder(path: &Path) -> io::Result<PathBuf> {
    resolve(path, Links::Careful).map(Resolved::path)
}

/// The one spelling of an absolute path of something that is there, whoever made the links on its way.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    let path = resolve(path, Links::All)?.path();
    // The link to a pipe has no path as its target.
    fs::symlink_metadata(&path).map(|_| path)
}

fn refused(what: &str, path: &Path) -> io::Error {
    let text = format!(
        "refused: {} is {what} in a folder that others can write to",
        path.display()
    );
    with_text(io::ErrorKind::PermissionDenied, text)
}

/// Whether somebody else than root and this user can put a link into that folder.
fn is_exposed(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|found| found.mode() & 0o022 != 0 || (found.uid() != 0 && found.uid() != user()))
}

enum Resolved {
    /// There is no link in it, so none has to be followed.
    Plain(PathBuf),
    /// In /proc, where links such as those of `/dev/stdout` have no path as their target.
    OfTheKernel(PathBuf),
}

impl Resolved {
    fn path(self) -> PathBuf {
        match self {
            Resolved::Plain(path) | Resolved::OfTheKernel(path) => path,
        }
    }
}

/// Which links are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    /// Those that nobody but root and this user can have made; another is an error.
    Careful,
    All,
}

fn resolve(path: &Path, links_followed: Links) -> io::Result<Resolved> {
    let mut links = 0;
    let mut done = PathBuf::from("/");
    // What is left of the path, the last part first.
    let mut rest: Vec<OsString> = Vec::new();
    push_parts(&mut rest, path);
    while let Some(part) = rest.pop() {
        if part == ".." {
            done = folder_of(&done).to_path_buf();
            continue;
        }
        done.push(&part);
        if links_followed == Links::Careful && done.as_os_str() == "/proc" {
            done.extend(rest.iter().rev());
            return Ok(Resolved::OfTheKernel(done));
        }
        // What is not there yet is no link.
        let Ok(target) = fs::read_link(&done) else {
            continue;
        };
        links += 1;
        if links_followed == Links::Careful && is_exposed(folder_of(&done)) {
            return Err(refused("a symbolic link", &done));
        }
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        done = folder_of(&done).to_path_buf();
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        push_parts(&mut rest, &target);
    }
    Ok(Resolved::Plain(done))
}

/// Puts the parts of a path between the slashes on the stack, the first on top.
fn push_parts(stack: &mut Vec<OsString>, path: &Path) {
    let parts = parts_backwards(path).filter(|part| !part.is_empty() && *part != ".");
    stack.extend(parts.map(OsStr::to_os_string));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const APPEND: libc::c_int = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY;

    /// A folder of this test's, with `safe` (0755) and `open` (1777) in it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path =
                std::env::temp_dir().join(format!("knockd-files-{}-{name}", std::process::id()));
            for (folder, mode) in [("", 0o755), ("safe", 0o755), ("open", 0o1777)] {
                fs::create_dir(path.join(folder)).unwrap();
                fs::set_permissions(path.join(folder), fs::Permissions::from_mode(mode)).unwrap();
            }
            Place(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// Why a file there is not opened for writing; `None`: it is.
        fn refusal(&self, name: &str) -> Option<String> {
            open(&self.path(name), APPEND, 0o600)
                .err()
                .map(|error| error.to_string())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_are_followed_only_from_folders_of_ours() {
        let place = Place::new("links");
        symlink("../safe/target", place.path("open/link")).unwrap();
        symlink(place.path("safe/target"), place.path("safe/link")).unwrap();
        symlink("../open/link", place.path("safe/far")).unwrap();
        symlink("../safe", place.path("open/folder")).unwrap();
        symlink("open", place.path("way")).unwrap();
        symlink("loop", place.path("safe/loop")).unwrap();
        assert_eq!(place.refusal("open/plain"), None);
        assert_eq!(place.refusal("safe/../open/./plain"), None);
        assert_eq!(place.refusal("way/plain"), None);
        for name in ["open/link", "way/link", "safe/far"] {
            let text = place.refusal(name).expect(name);
            assert!(text.contains("open/link is a symbolic link"), "{text}");
            assert!(!place.path("safe/target").exists());
        }
        let text = place.refusal("open/folder/target").unwrap();
        assert!(text.contains("open/folder is a symbolic link"), "{text}");
        assert_eq!(place.refusal("safe/link"), None);
        assert!(place.path("safe/target").exists());
        assert!(
            place
                .refusal("safe/loop")
                .unwrap()
                .contains("symbolic links")
        );
        assert!(
            place
                .refusal("safe/none/file")
                .unwrap()
                .contains("No such file")
        );
    }

    #[test]
    fn a_path_has_one_spelling_as_realpath_has_it() {
        let place = Place::new("spelling");
        fs::write(place.path("safe/file"), "").unwrap();
        symlink("../safe/file", place.path("open/link")).unwrap();
        let file = File::open(place.path("safe/file")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = std::os::fd::AsRawFd::as_raw_fd(&pipe);
        for path in [
            place.path("safe/../open/./link"),
            place.path("none"),
            format!("/dev/fd/{fd}").into(),
            format!("/proc/self/fd/{fd}").into(),
            format!("/dev/fd/{pipe}").into(),
            "/proc/self/cwd/Cargo.toml".into(),
        ] {
            let (ours, theirs) = (canonical(&path).ok(), fs::canonicalize(&path).ok());
            assert_eq!(ours, theirs, "{}", path.display());
        }
    }

    #[test]
    fn a_hard_link_in_a_folder_of_others_is_refused() {
        let place = Place::new("hard");
        fs::write(place.path("safe/secret"), "").unwrap();
        fs::hard_link(place.path("safe/secret"), place.path("open/log")).unwrap();
        fs::hard_link(place.path("safe/secret"), place.path("safe/log")).unwrap();
        assert!(place.refusal("open/log").unwrap().contains("a hard link"));
        assert_eq!(place.refusal("safe/log"), None);
    }

    #[test]
    fn devices_and_the_descriptors_of_this_process_can_be_opened() {
        let place = Place::new("devices");
        let absolute =
            |path: &str| open(Path::new(path), libc::O_APPEND | libc::O_WRONLY, 0).map(drop);
        absolute("/dev/null").unwrap();
        let file = File::create(place.path("safe/output")).unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        absolute(&link).unwrap();
        symlink(&link, place.path("safe/stdout")).unwrap();
        assert_eq!(place.refusal("safe/stdout"), None);
    }
}
