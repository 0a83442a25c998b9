//! Parts of paths. (std's way takes 2 kB more on mipsel.)
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Returns the directory of an absolute path without a trailing slash. The root's is the root.
pub fn parent(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let length = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let directory = bytes.get(..length.max(1)).unwrap_or_default();
    Path::new(OsStr::from_bytes(directory))
}

/// Returns the components, the last first; empty between two slashes.
pub fn components_rev(path: &Path) -> impl Iterator<Item = &OsStr> {
    let parts = path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/');
    parts.map(OsStr::from_bytes)
}

/// Returns the part after the last slash.
pub fn file_name(path: &Path) -> &OsStr {
    components_rev(path).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_at_its_slashes() {
        let directory = |path| parent(Path::new(path));
        assert_eq!(directory("/jffs/etc/knockd.conf"), Path::new("/jffs/etc"));
        assert_eq!(directory("/etc"), Path::new("/"));
        assert_eq!(directory("/"), Path::new("/"));
        for (path, name) in [
            ("/usr/bin/knock", "knock"),
            ("knock", "knock"),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(file_name(Path::new(path)), name, "{path}");
        }
        let parts: Vec<_> = components_rev(Path::new("/a//../b")).collect();
        assert_eq!(parts, ["b", "..", "", "a", ""]);
    }
}
