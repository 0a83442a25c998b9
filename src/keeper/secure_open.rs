//! Opens the files that a config names. The keeper is root. In a directory that others can write
//! to, another user may have placed a link, so that the keeper writes to the wrong file, or a file
//! of their own.
#![forbid(unsafe_code)]

use crate::sys::error::{Error, Result};
use crate::sys::file;
use crate::sys::privileges::user;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The kernel's own limit (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Opens an absolute path like [`file::open`], but component by component, so that no component can
/// be replaced after its check. Follows a link only if root or this user created it, and refuses
/// another user's file in a directory that others can write to: both may be there to redirect what
/// the keeper reads or writes. A FIFO without a reader is an error and does not block.
pub fn open(path: &Path, flags: libc::c_int, mode: u32) -> Result<File> {
    let end = match walk(path, LinkPolicy::TrustedOnly)? {
        End::In(end) => end,
        End::InProc(path) => return file::open(&path, flags | libc::O_NONBLOCK, mode),
    };
    let no_follow = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = file::open_in(end.directory.as_fd(), &end.name, flags | no_follow, mode)?;
    let found = file::find_open(file.as_fd())?;
    if exposure(end.directory.as_fd())? != Exposure::None {
        if !is_trusted(found.user) {
            return Err(Error::Own(
                "refused: owned by another user, in a directory that others can write to",
            ));
        }
        if found.is_file() && found.names > 1 {
            return Err(Error::Own(
                "refused: it is a hard link in a directory that others can write to",
            ));
        }
    }
    Ok(file)
}

/// Like [`open`], for a file that controls the daemon: only root and this user may own or write it,
/// in any directory.
pub fn open_trusted(path: &Path, flags: libc::c_int) -> Result<File> {
    let file = open(path, flags, 0)?;
    let found = file::find_open(file.as_fd())?;
    if is_trusted(found.user) && found.mode & 0o022 == 0 {
        return Ok(file);
    }
    Err(Error::Own(
        "others own it or can write to it; chown it to root and chmod 600 it",
    ))
}

/// Opens the parent of the named directory. Follows only trusted links.
pub fn open_parent(path: &Path) -> Result<InDirectory> {
    match walk(path, LinkPolicy::TrustedOnly)? {
        End::In(end) => Ok(end),
        End::InProc(_) => Err(Error::Os(libc::EACCES)),
    }
}

/// Returns the canonical path of an existing file. Follows all links.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    let path = match walk(path, LinkPolicy::All)? {
        End::In(end) => end.path,
        End::InProc(path) => path,
    };
    // The link to a pipe has no path as its target.
    file::find_link(&path).map(|_| path)
}

/// Returns whether the owner is root or the user of this process.
pub fn is_trusted(owner: libc::uid_t) -> bool {
    owner == 0 || owner == user()
}

/// The rights of users other than root and this user in a directory.
#[derive(PartialEq, Eq)]
enum Exposure {
    /// None.
    None,
    /// Add names, and remove and rename their own, as in /tmp (sticky bit).
    Sticky,
    /// Replace any entry.
    Full,
}

fn exposure(directory: BorrowedFd<'_>) -> Result<Exposure> {
    let found = file::find_in(directory, OsStr::new("."))?;
    Ok(match found.mode & 0o022 {
        _ if !is_trusted(found.user) => Exposure::Full,
        0 => Exposure::None,
        _ if found.mode & libc::S_ISVTX != 0 => Exposure::Sticky,
        _ => Exposure::Full,
    })
}

/// A name in an open directory.
pub struct InDirectory {
    /// The directory.
    pub directory: File,
    /// The name, not of a link; `.` for the root.
    pub name: OsString,
    /// The path of the name, without links and `..`.
    pub path: PathBuf,
}

/// The end of a path.
enum End {
    In(InDirectory),
    /// A path in /proc, where links such as that of `/dev/stdout` have no path as their target.
    InProc(PathBuf),
}

/// Which links to follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkPolicy {
    /// Only links that root or this user created and no other user can have replaced. Others are
    /// errors.
    TrustedOnly,
    All,
}

/// Opens a directory only to look up names. Kernels before 2.6.39 do not know O_PATH and open it
/// for reading.
const TRAVERSE: libc::c_int = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

fn root() -> Result<File> {
    file::open(Path::new("/"), TRAVERSE, 0)
}

fn walk(path: &Path, links_followed: LinkPolicy) -> Result<End> {
    let mut links = 0;
    let mut directory = root()?;
    // `done` is the path of `directory`, empty for the root. Walks `full_path` from `at` on.
    let mut done: Vec<u8> = Vec::new();
    let mut full_path = path.as_os_str().as_bytes().to_vec();
    let mut at = 0;
    loop {
        let is_slash = |byte: &u8| *byte == b'/';
        let left = full_path.get(at..).unwrap_or_default();
        let name = left.split(is_slash).next().unwrap_or_default();
        let rest = left.get(name.len()..).unwrap_or_default();
        at += name.len() + 1;
        let is_last = rest.iter().all(is_slash);
        let here = directory.as_fd();
        let part = OsStr::from_bytes(name);
        match name {
            b"" if !is_last => continue,
            b"." => continue,
            b".." => {
                directory = file::open_in(here, part, TRAVERSE, 0)?;
                done.truncate(done.iter().rposition(is_slash).unwrap_or(0));
                continue;
            }
            b"" => {
                return Ok(End::In(InDirectory {
                    directory,
                    name: ".".into(),
                    path: path_of(done),
                }));
            }
            _ => {}
        }
        let before = done.len();
        done.push(b'/');
        done.extend_from_slice(name);
        if links_followed == LinkPolicy::TrustedOnly && done == b"/proc" {
            done.extend_from_slice(rest);
            return Ok(End::InProc(path_of(done)));
        }
        // A missing entry is not a link.
        let link = file::find_in(here, part);
        let link = (link.ok()).filter(|found| found.mode & libc::S_IFMT == libc::S_IFLNK);
        if let Some(link) = link {
            links += 1;
            if links_followed == LinkPolicy::TrustedOnly {
                // A hard link to one of root's links may be another user's.
                let safe = match exposure(here)? {
                    Exposure::None => true,
                    Exposure::Sticky => is_trusted(link.user) && link.names == 1,
                    Exposure::Full => false,
                };
                if !safe {
                    return Err(Error::Own(
                        "refused: its path has a symbolic link in a directory that others \
                         can write to",
                    ));
                }
            }
            if links > MAX_LINKS {
                return Err(Error::Os(libc::ELOOP));
            }
            let mut target = file::link_in(here, part)?;
            done.truncate(before);
            if target.first() == Some(&b'/') {
                directory = root()?;
                done.clear();
            }
            target.extend_from_slice(rest);
            (full_path, at) = (target, 0);
        } else if is_last {
            return Ok(End::In(InDirectory {
                directory,
                name: part.to_os_string(),
                path: path_of(done),
            }));
        } else {
            directory = file::open_in(here, part, TRAVERSE, 0)?;
        }
    }
}

/// Converts the bytes of [`walk`] to a path.
fn path_of(mut done: Vec<u8>) -> PathBuf {
    if done.is_empty() {
        done.push(b'/');
    }
    OsString::from_vec(done).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    const APPEND: libc::c_int = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY;

    /// A test directory with the subdirectories `safe` (0755), `sticky` (1777) and `open` (0777).
    struct TestDir(PathBuf);

    impl TestDir {
        fn new(name: &str) -> TestDir {
            let path =
                std::env::temp_dir().join(format!("knockd-files-{}-{name}", std::process::id()));
            for (directory, mode) in [
                ("", 0o755),
                ("safe", 0o755),
                ("sticky", 0o1777),
                ("open", 0o777),
            ] {
                fs::create_dir(path.join(directory)).unwrap();
                fs::set_permissions(path.join(directory), fs::Permissions::from_mode(mode))
                    .unwrap();
            }
            TestDir(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// Returns why a file there cannot be opened for writing.
        fn refusal(&self, name: &str) -> Option<String> {
            open(&self.path(name), APPEND, 0o600)
                .err()
                .map(|error| error.to_string())
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_are_followed_only_from_trusted_directories() {
        let dir = TestDir::new("links");
        symlink("../safe/target", dir.path("open/link")).unwrap();
        symlink(dir.path("safe/target"), dir.path("safe/link")).unwrap();
        symlink("../open/link", dir.path("safe/far")).unwrap();
        symlink("../safe", dir.path("open/directory")).unwrap();
        symlink("open", dir.path("link")).unwrap();
        symlink("loop", dir.path("safe/loop")).unwrap();
        assert_eq!(dir.refusal("open/plain"), None);
        assert_eq!(dir.refusal("safe/../open/./plain"), None);
        assert_eq!(dir.refusal("link/plain"), None);
        for name in ["open/link", "link/link", "safe/far"] {
            let text = dir.refusal(name).expect(name);
            assert!(text.contains("has a symbolic link"), "{text}");
            assert!(!dir.path("safe/target").exists());
        }
        let text = dir.refusal("open/directory/target").unwrap();
        assert!(text.contains("has a symbolic link"), "{text}");
        assert_eq!(dir.refusal("safe/link"), None);
        assert!(dir.path("safe/target").exists());
        assert!(dir.refusal("safe/loop").unwrap().contains("symbolic links"));
        assert!(
            dir.refusal("safe/none/file")
                .unwrap()
                .contains("No such file")
        );
    }

    const OTHER_USER: u32 = 65531;

    #[test]
    fn in_a_sticky_directory_links_of_root_are_followed_and_no_others() {
        let dir = TestDir::new("sticky");
        symlink("../safe/target", dir.path("sticky/ours")).unwrap();
        assert_eq!(dir.refusal("sticky/ours"), None);
        fs::hard_link(dir.path("sticky/ours"), dir.path("sticky/second")).unwrap();
        let text = dir.refusal("sticky/second").unwrap();
        assert!(text.contains("has a symbolic link"), "{text}");
        symlink("../safe/other", dir.path("sticky/theirs")).unwrap();
        if lchown(dir.path("sticky/theirs"), Some(OTHER_USER), None).is_err() {
            return eprintln!("skipped: not root");
        }
        let text = dir.refusal("sticky/theirs").unwrap();
        assert!(text.contains("has a symbolic link"), "{text}");
        assert!(!dir.path("safe/other").exists());
    }

    #[test]
    fn a_file_of_another_user_is_refused_where_others_can_write() {
        let dir = TestDir::new("owner");
        for name in ["safe/file", "sticky/file", "open/file"] {
            fs::write(dir.path(name), "").unwrap();
            assert_eq!(dir.refusal(name), None);
            if chown(dir.path(name), Some(OTHER_USER), None).is_err() {
                return eprintln!("skipped: not root");
            }
        }
        for name in ["sticky/file", "open/file"] {
            let text = dir.refusal(name).unwrap();
            // If fs.protected_regular is set, the kernel refuses the one in `sticky`.
            let refused = text.contains("owned by another user");
            assert!(refused || text.contains("Permission denied"), "{text}");
        }
        assert_eq!(dir.refusal("safe/file"), None);
        // The same in a directory that belongs to that user.
        chown(dir.path("safe"), Some(OTHER_USER), None).unwrap();
        assert!(dir.refusal("safe/file").is_some());
    }

    #[test]
    fn a_controlling_file_is_trusted_only_if_no_other_user_can_write_to_it() {
        let dir = TestDir::new("trusted");
        let path = dir.path("safe/list");
        fs::write(&path, "").unwrap();
        for (mode, trusted) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let opened = open_trusted(&path, libc::O_RDONLY);
            assert_eq!(opened.is_ok(), trusted, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if chown(&path, Some(OTHER_USER), None).is_ok() {
            assert!(open_trusted(&path, libc::O_RDONLY).is_err());
        }
    }

    #[test]
    fn a_path_has_one_spelling_as_realpath_has_it() {
        let dir = TestDir::new("spelling");
        fs::write(dir.path("safe/file"), "").unwrap();
        symlink("../safe/file", dir.path("open/link")).unwrap();
        let file = File::open(dir.path("safe/file")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let (pipe, _writer) = std::io::pipe().unwrap();
        let pipe = std::os::fd::AsRawFd::as_raw_fd(&pipe);
        for path in [
            dir.path("safe/../open/./link"),
            dir.path("none"),
            format!("/dev/fd/{fd}").into(),
            format!("/proc/self/fd/{fd}").into(),
            format!("/dev/fd/{pipe}").into(),
            "/proc/self/cwd/Cargo.toml".into(),
        ] {
            let (ours, theirs) = (canonical(&path).ok(), fs::canonicalize(&path).ok());
            assert_eq!(ours, theirs, "{}", path.to_string_lossy());
        }
    }

    #[test]
    fn a_hard_link_in_a_directory_of_others_is_refused() {
        let dir = TestDir::new("hard");
        fs::write(dir.path("safe/secret"), "").unwrap();
        fs::hard_link(dir.path("safe/secret"), dir.path("open/log")).unwrap();
        fs::hard_link(dir.path("safe/secret"), dir.path("safe/log")).unwrap();
        assert!(dir.refusal("open/log").unwrap().contains("a hard link"));
        assert_eq!(dir.refusal("safe/log"), None);
    }

    #[test]
    fn devices_and_the_descriptors_of_this_process_can_be_opened() {
        let dir = TestDir::new("devices");
        let absolute =
            |path: &str| open(Path::new(path), libc::O_APPEND | libc::O_WRONLY, 0).map(drop);
        absolute("/dev/null").unwrap();
        let file = File::create(dir.path("safe/output")).unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        absolute(&link).unwrap();
        symlink(&link, dir.path("safe/stdout")).unwrap();
        assert_eq!(dir.refusal("safe/stdout"), None);
    }
}
