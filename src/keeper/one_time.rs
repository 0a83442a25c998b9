//! One-time sequences: a file with one sequence a line. Each opens the door once.
#![forbid(unsafe_code)]

use super::config_file;
use super::secure_open;
use crate::config::parse_sequence;
use crate::knock::Sequence;
use crate::sys::error::{Error, Result};
use crate::sys::file::write_all;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The list of one door. Each access reads the file again, so that edits and replacements take
/// effect at once.
#[derive(Debug)]
pub struct OneTimeList {
    path: PathBuf,
    door: String,
    /// The sequence that opens the door now. `None` if the list is used up or cannot be read or
    /// marked.
    pub current: Option<Sequence>,
}

/// Editors on Windows write it before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reports at most this many bad lines of a list.
const MAX_REPORTS: usize = 10;

impl OneTimeList {
    /// Creates the list for the named door. Does not open the file.
    pub fn new(path: PathBuf, door: &str) -> OneTimeList {
        OneTimeList {
            path,
            door: door.to_string(),
            current: None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the first unused sequence, or `None` if all are used. Skips and reports malformed
    /// lines.
    pub fn next(&self, report: &mut dyn FnMut(String)) -> Result<Option<Sequence>> {
        let file = secure_open::open_trusted(&self.path, libc::O_RDONLY)?;
        let mut first = None;
        self.visit(&file, report, &mut |_, sequence| {
            first.get_or_insert(sequence);
        })?;
        Ok(first)
    }

    /// Checks that lines of the file can be marked, without marking one.
    pub fn check_writable(&self) -> Result<()> {
        secure_open::open_trusted(&self.path, libc::O_RDWR).map(drop)
    }

    /// Overwrites the first byte of every line with that sequence by `#`, as knockd 0.8 does, and
    /// waits until the disk has it. Fails if the file no longer has such a line.
    pub fn mark_used(&self, sequence: &Sequence) -> Result<()> {
        // Opened only once, because the path may name another file the next time.
        let mut file = secure_open::open_trusted(&self.path, libc::O_RDWR)?;
        let mut offsets = Vec::new();
        self.visit(&file, &mut |_| {}, &mut |offset, found| {
            if found == *sequence {
                offsets.push(offset);
            }
        })?;
        for offset in &offsets {
            file.seek(SeekFrom::Start(*offset))?;
            write_all(file.as_fd(), b"#")?;
        }
        if offsets.is_empty() {
            return Err(Error::Own("the sequence is not in the file"));
        }
        Ok(file.sync_all()?)
    }

    /// Passes each usable sequence to `usable`, with the byte offset of its line.
    fn visit(
        &self,
        file: &File,
        report: &mut dyn FnMut(String),
        usable: &mut dyn FnMut(u64, Sequence),
    ) -> Result<()> {
        let text = config_file::read_open(file)?;
        let mut offset = 0;
        let mut bad = 0;
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let content = line
                .strip_prefix(BYTE_ORDER_MARK)
                .filter(|_| number == 1)
                .unwrap_or(line);
            let is_used_or_empty = matches!(content.trim_ascii().first(), None | Some(b'#'));
            if !is_used_or_empty {
                let mut warnings = Vec::new();
                match parse_sequence(&self.door, (number, 1), content, &mut warnings) {
                    Ok(sequence) => usable(offset, sequence),
                    Err(problem) => {
                        bad += 1;
                        if bad <= MAX_REPORTS {
                            report(problem.show(&self.path));
                        }
                    }
                }
            }
            offset += line.len() as u64 + 1;
        }
        if bad > MAX_REPORTS {
            let more = bad - MAX_REPORTS;
            report(format!(
                "{}: {more} more such lines",
                self.path.to_string_lossy()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str, text: &str) -> OneTimeList {
        let path =
            std::env::temp_dir().join(format!("knockd-one-time-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        OneTimeList::new(path, "A")
    }

    fn next(list: &OneTimeList) -> Option<String> {
        list.next(&mut |_| {})
            .unwrap()
            .map(|sequence| sequence.to_string())
    }

    fn use_next(list: &OneTimeList) -> String {
        let sequence = list.next(&mut |_| {}).unwrap().unwrap();
        list.mark_used(&sequence).unwrap();
        std::fs::read_to_string(list.path()).unwrap()
    }

    #[test]
    fn lines_are_used_in_order_and_marked_on_their_first_byte() {
        let list = list("order", "# c\r\n\r\n  \t\n 1000:udp , 2000 \r\n4000,5000");
        assert_eq!(next(&list).unwrap(), "1000:udp,2000:tcp");
        assert_eq!(
            use_next(&list),
            "# c\r\n\r\n  \t\n#1000:udp , 2000 \r\n4000,5000"
        );
        assert_eq!(next(&list).unwrap(), "4000:tcp,5000:tcp");
        assert_eq!(
            use_next(&list),
            "# c\r\n\r\n  \t\n#1000:udp , 2000 \r\n#000,5000"
        );
        assert_eq!(next(&list), None);
        std::fs::remove_file(list.path()).unwrap();
    }

    #[test]
    fn a_bad_line_is_reported_with_its_place_and_passed_over() {
        let list = list("bad", "hello\n1000,99999\n 4000,5000\n");
        let mut reports = Vec::new();
        let sequence = list.next(&mut |text| reports.push(text)).unwrap().unwrap();
        assert_eq!(sequence.to_string(), "4000:tcp,5000:tcp");
        assert_eq!(reports.len(), 2);
        assert!(
            reports[1].contains("config: section A: port 99999 is invalid"),
            "{reports:?}"
        );
        assert!(reports[1].contains(":2:6: "), "{reports:?}");
        assert_eq!(use_next(&list), "hello\n1000,99999\n#4000,5000\n");
        std::fs::remove_file(list.path()).unwrap();
    }

    #[test]
    fn a_sequence_that_occurs_twice_is_marked_twice() {
        let list = list("twice", "1,2\n3,4\n1,2\n");
        assert_eq!(use_next(&list), "#,2\n3,4\n#,2\n");
        std::fs::remove_file(list.path()).unwrap();
    }

    #[test]
    fn a_sequence_that_was_removed_cannot_be_used() {
        let list = list("gone", "1,2\n3,4\n");
        let sequence = list.next(&mut |_| {}).unwrap().unwrap();
        std::fs::write(list.path(), "3,4\n").unwrap();
        assert!(list.mark_used(&sequence).is_err());
        assert_eq!(std::fs::read_to_string(list.path()).unwrap(), "3,4\n");
        std::fs::remove_file(list.path()).unwrap();
    }
}
