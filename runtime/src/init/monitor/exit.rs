use std::io::{Cursor, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags, openat, renameat};
use rustix::io::Errno;

/// How often a record that can't be written (the filesystem is full) is tried again, with a second in between.
const TRIES: u32 = 60;

/// Writes down how init ended, for the host that lives now or the next one. A directory that is gone is a container that was deleted meanwhile.
pub(super) fn record(directory: BorrowedFd<'_>, code: u32, at: Duration) {
    for _ in 0..TRIES {
        match try_to_record(directory, code, at) {
            Ok(()) | Err(Errno::NOENT) => return,
            Err(_) => {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = rustix::event::poll(&mut [], Some(&second));
            }
        }
    }
}

/// Readers see nothing or the whole. Not synced: neither the directory nor the container outlives the machine's end.
fn try_to_record(directory: BorrowedFd<'_>, code: u32, at: Duration) -> Result<(), Errno> {
    let mut text = Cursor::new([0u8; 128]);
    let (seconds, nanos) = (at.as_secs(), at.subsec_nanos());
    write!(
        text,
        r#"{{"code":{code},"at":{{"secs_since_epoch":{seconds},"nanos_since_epoch":{nanos}}}}}"#
    )
    .map_err(|_| Errno::NOBUFS)?;
    let length = text.position() as usize;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(directory, c".exit.json.new", flags, Mode::RUSR | Mode::WUSR)?;
    let mut left = text.get_ref().get(..length).ok_or(Errno::NOBUFS)?;
    while !left.is_empty() {
        let written = match rustix::io::write(&file, left) {
            Err(Errno::INTR) => continue,
            written => written?,
        };
        left = left.get(written..).ok_or(Errno::IO)?;
    }
    renameat(directory, c".exit.json.new", directory, c"exit.json")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::time::SystemTime;

    use super::*;
    use crate::ExitStatus;

    #[test]
    fn what_is_recorded_is_an_exit_status() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = File::open(folder.path()).expect("it opens");
        let at = Duration::new(1_764_500_000, 7);
        for code in [0, 137, u32::MAX] {
            record(directory.as_fd(), code, at);
            let bytes = std::fs::read(folder.path().join("exit.json")).expect("it is there");
            let read: ExitStatus = serde_json::from_slice(&bytes).expect("it is one");
            assert_eq!(
                read,
                ExitStatus {
                    code,
                    at: SystemTime::UNIX_EPOCH + at,
                    out_of_memory: false,
                }
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn nobody_waits_for_a_record_of_what_was_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = File::open(folder.path()).expect("it opens");
        drop(folder);
        record(directory.as_fd(), 0, Duration::ZERO);
    }
}
