//! The content of a directory. (`std::fs::read_dir` takes 2 kB more on mipsel.)

use super::error::{Error, Result};
use super::file::c_string;
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Returns the names in that directory, without `.` and `..`.
pub fn names(path: &Path) -> Result<Vec<OsString>> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: a C string that outlives the call.
    let directory = unsafe { libc::opendir(path.as_ptr()) };
    if directory.is_null() {
        return Err(Error::last());
    }
    let mut names = Vec::new();
    let result = loop {
        // SAFETY: the directory is open until after the loop; errno is the thread's own, and an
        // entry is valid until the next is read.
        let name = unsafe {
            *libc::__errno_location() = 0;
            let entry = libc::readdir64(directory);
            match entry.is_null() {
                // Do not form a reference: the entry is shorter than its type.
                false => CStr::from_ptr((&raw const (*entry).d_name).cast()).to_bytes(),
                true if *libc::__errno_location() != 0 => break Err(Error::last()),
                true => break Ok(names),
            }
        };
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    };
    // SAFETY: opened above, closed once.
    unsafe { libc::closedir(directory) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_its_names_and_a_file_has_none() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = names(&here.join("src/sys")).expect("directory");
        found.sort();
        assert!(found.contains(&"directory.rs".into()) && !found.contains(&".".into()));
        let mut expected: Vec<OsString> = std::fs::read_dir(here.join("src/sys"))
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        expected.sort();
        assert_eq!(found, expected);
        for path in ["Cargo.toml", "nosuch", "a\0b"] {
            assert!(names(&here.join(path)).is_err(), "{path}");
        }
    }
}
