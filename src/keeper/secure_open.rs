//! Opening the files that a config names. The keeper is root, and in a directory that others can write to somebody may have put a link
//! there, to have it write to another file, or a file of theirs.
#![forbid(unsafe_code)]

use crate::sys::error::{Error, Result};
use crate::sys::file;
use crate::sys::privileges::user;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// As the kernel's own bound (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Opens an absolute path as [`file::open`] does, one directory after the other, so that none can be put in the dir of one that was looked
/// at. A link is followed only if root or this user made it, and a file of another user in a directory that others can write to is refused:
/// either may be there to have the keeper write, or read, something else. A FIFO without a reader is an error and holds nothing up.
pub fn open(path: &Path, flags: libc::c_int, mode: u32) -> Result<File> {
    let end = match walk(path, LinkPolicy::TrustedOnly)? {
        End::In(end) => end,
        End::InProc(path) => return file::open(&path, flags | libc::O_NONBLOCK, mode),
    };
    let careful = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = file::open_in(end.folder.as_fd(), &end.name, flags | careful, mode)?;
    let found = file::find_open(file.as_fd())?;
    if exposure(end.folder.as_fd())? != Exposure::None {
        if !is_trusted(found.user) {
            return Err(Error::Own(
                "refused: it is another user's, in a directory that others can write to",
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

/// The same of a file that says what the daemon does: nobody but root and this user may own it or write to it, wherever it is.
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

/// A directory that is named: the one it is in, where each link on the way may be followed.
pub fn folder(path: &Path) -> Result<InDirectory> {
    match walk(path, LinkPolicy::TrustedOnly)? {
        End::In(end) => Ok(end),
        End::InProc(_) => Err(Error::Os(libc::EACCES)),
    }
}

/// The one spelling of an absolute path of something that is there, whoever made the links on its way.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    let path = match walk(path, LinkPolicy::All)? {
        End::In(end) => end.path,
        End::InProc(path) => path,
    };
    // The link to a pipe has no path as its target.
    file::find_link(&path).map(|_| path)
}

/// Root, or the user that this process runs as.
pub fn is_trusted(owner: libc::uid_t) -> bool {
    owner == 0 || owner == user()
}

/// What others than root and this user can do in a directory.
#[derive(PartialEq, Eq)]
enum Exposure {
    /// Nothing.
    None,
    /// Add names, and remove and rename their own (the sticky bit): /tmp.
    Sticky,
    /// Replace everything.
    Full,
}

fn exposure(folder: BorrowedFd<'_>) -> Result<Exposure> {
    let found = file::find_in(folder, OsStr::new("."))?;
    Ok(match found.mode & 0o022 {
        _ if !is_trusted(found.user) => Exposure::Full,
        0 => Exposure::None,
        _ if found.mode & libc::S_ISVTX != 0 => Exposure::Sticky,
        _ => Exposure::Full,
    })
}

/// A name in a directory, which is held open.
pub struct InDirectory {
    /// The directory.
    pub folder: File,
    /// The name, which is no link; `.` for the root.
    pub name: OsString,
    /// Both, without links and `..`.
    pub path: PathBuf,
}

/// Where a path leads.
enum End {
    In(InDirectory),
    /// Into /proc, where links such as those of `/dev/stdout` have no path as their target.
    InProc(PathBuf),
}

/// Which links are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkPolicy {
    /// Those that root or this user made, and nobody else can have replaced; another is an error.
    TrustedOnly,
    All,
}

/// What a directory is opened for: nothing but to look into it. A kernel before 2.6.39 does not know O_PATH, and opens it for reading.
const WAY: libc::c_int = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

fn root() -> Result<File> {
    file::open(Path::new("/"), WAY, 0)
}

fn walk(path: &Path, links_followed: LinkPolicy) -> Result<End> {
    let mut links = 0;
    let mut folder = root()?;
    // The path of that folder, nothing for the root; the path to walk, and from where on it is left.
    let mut done: Vec<u8> = Vec::new();
    let mut way = path.as_os_str().as_bytes().to_vec();
    let mut at = 0;
    loop {
        let is_slash = |byte: &u8| *byte == b'/';
        let left = way.get(at..).unwrap_or_default();
        let name = left.split(is_slash).next().unwrap_or_default();
        let rest = left.get(name.len()..).unwrap_or_default();
        at += name.len() + 1;
        let is_last = rest.iter().all(is_slash);
        let here = folder.as_fd();
        let part = OsStr::from_bytes(name);
        match name {
            b"" if !is_last => continue,
            b"." => continue,
            b".." => {
                folder = file::open_in(here, part, WAY, 0)?;
                done.truncate(done.iter().rposition(is_slash).unwrap_or(0));
                continue;
            }
            b"" => {
                return Ok(End::In(InDirectory {
                    folder,
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
        // What is not there yet is no link.
        let link = file::find_in(here, part);
        let link = (link.ok()).filter(|found| found.mode & libc::S_IFMT == libc::S_IFLNK);
        if let Some(link) = link {
            links += 1;
            if links_followed == LinkPolicy::TrustedOnly {
                // A second name of a link of root's may be another user's work.
                let safe = match exposure(here)? {
                    Exposure::None => true,
                    Exposure::Sticky => is_trusted(link.user) && link.names == 1,
                    Exposure::Full => false,
                };
                if !safe {
                    return Err(Error::Own(
                        "refused: its path has a symbolic link in a directory that others can write to",
                    ));
                }
            }
            if links > MAX_LINKS {
                return Err(Error::Os(libc::ELOOP));
            }
            let mut target = file::link_in(here, part)?;
            done.truncate(before);
            if target.first() == Some(&b'/') {
                folder = root()?;
                done.clear();
            }
            target.extend_from_slice(rest);
            (way, at) = (target, 0);
        } else if is_last {
            return Ok(End::In(InDirectory {
                folder,
                name: part.to_os_string(),
                path: path_of(done),
            }));
        } else {
            folder = file::open_in(here, part, WAY, 0)?;
        }
    }
}

/// Of [`walk`]'s bytes.
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

    /// A folder of this test's, with `safe` (0755), `sticky` (1777) and `open` (0777) in it.
    struct TestDir(PathBuf);

    impl TestDir {
        fn new(name: &str) -> TestDir {
            let path =
                std::env::temp_dir().join(format!("knockd-files-{}-{name}", std::process::id()));
            for (folder, mode) in [
                ("", 0o755),
                ("safe", 0o755),
                ("sticky", 0o1777),
                ("open", 0o777),
            ] {
                fs::create_dir(path.join(folder)).unwrap();
                fs::set_permissions(path.join(folder), fs::Permissions::from_mode(mode)).unwrap();
            }
            TestDir(path)
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

    impl Drop for TestDir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_are_followed_only_from_folders_of_ours() {
        let dir = TestDir::new("links");
        symlink("../safe/target", dir.path("open/link")).unwrap();
        symlink(dir.path("safe/target"), dir.path("safe/link")).unwrap();
        symlink("../open/link", dir.path("safe/far")).unwrap();
        symlink("../safe", dir.path("open/folder")).unwrap();
        symlink("open", dir.path("way")).unwrap();
        symlink("loop", dir.path("safe/loop")).unwrap();
        assert_eq!(dir.refusal("open/plain"), None);
        assert_eq!(dir.refusal("safe/../open/./plain"), None);
        assert_eq!(dir.refusal("way/plain"), None);
        for name in ["open/link", "way/link", "safe/far"] {
            let text = dir.refusal(name).expect(name);
            assert!(text.contains("has a symbolic link"), "{text}");
            assert!(!dir.path("safe/target").exists());
        }
        let text = dir.refusal("open/folder/target").unwrap();
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

    const SOMEBODY: u32 = 65531;

    #[test]
    fn in_a_sticky_folder_links_of_root_are_followed_and_no_others() {
        let dir = TestDir::new("sticky");
        symlink("../safe/target", dir.path("sticky/ours")).unwrap();
        assert_eq!(dir.refusal("sticky/ours"), None);
        fs::hard_link(dir.path("sticky/ours"), dir.path("sticky/second")).unwrap();
        let text = dir.refusal("sticky/second").unwrap();
        assert!(text.contains("has a symbolic link"), "{text}");
        symlink("../safe/other", dir.path("sticky/theirs")).unwrap();
        if lchown(dir.path("sticky/theirs"), Some(SOMEBODY), None).is_err() {
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
            if chown(dir.path(name), Some(SOMEBODY), None).is_err() {
                return eprintln!("skipped: not root");
            }
        }
        for name in ["sticky/file", "open/file"] {
            let text = dir.refusal(name).unwrap();
            // Where fs.protected_regular is set, the kernel itself refuses the one in `sticky`.
            let refused = text.contains("it is another user's");
            assert!(refused || text.contains("Permission denied"), "{text}");
        }
        assert_eq!(dir.refusal("safe/file"), None);
        // So it is in a directory of that user.
        chown(dir.path("safe"), Some(SOMEBODY), None).unwrap();
        assert!(dir.refusal("safe/file").is_some());
    }

    #[test]
    fn what_says_what_to_do_is_trusted_only_if_nobody_else_can_write_to_it() {
        let dir = TestDir::new("trusted");
        let path = dir.path("safe/list");
        fs::write(&path, "").unwrap();
        for (mode, trusted) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let opened = open_trusted(&path, libc::O_RDONLY);
            assert_eq!(opened.is_ok(), trusted, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if chown(&path, Some(SOMEBODY), None).is_ok() {
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
    fn a_hard_link_in_a_folder_of_others_is_refused() {
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
