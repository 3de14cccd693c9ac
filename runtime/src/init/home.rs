//! The user's home directory, as the container's `/etc/passwd` has it (passwd(5)), read without allocating.

use std::ffi::CStr;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// The most that is read: an image can't keep a start waiting by a long file.
const MOST: usize = 4 << 20;
const PREFIX: &[u8] = b"HOME=";
/// Field numbers of a line: `name:password:uid:gid:comment:home:shell`.
const UID: u8 = 2;
const HOME: u8 = 5;

/// `HOME=` and the directory, with a null at the end.
#[derive(Debug)]
pub(super) struct Home {
    bytes: [u8; 1024],
    /// How many without the null; none when no home was found.
    length: usize,
}

impl Home {
    pub(super) const fn none() -> Self {
        Self {
            bytes: [0; 1024],
            length: 0,
        }
    }

    /// The variable, if a home was found.
    pub(super) fn variable(&self) -> Option<&CStr> {
        let bytes = self.bytes.get(..=self.length)?;
        CStr::from_bytes_with_nul(bytes).ok().filter(|v| !v.is_empty())
    }

    /// Reads `/etc/passwd`. A file that is not there, not a file or not what it should be is as good as none.
    pub(super) fn look_up(&mut self, uid: u32) {
        self.length = 0;
        // Whatever the image has in that place, opening it must not block.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(file) = openat2(CWD, c"/etc/passwd", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) else {
            return;
        };
        let regular = fstat(&file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        let in_proc = fstatfs(&file).is_ok_and(|s| s.f_type as u64 == PROC_SUPER_MAGIC);
        if !regular || in_proc {
            return;
        }
        let mut search = Search::new(uid);
        let mut buffer = [0u8; 4096];
        for _ in 0..MOST / buffer.len() {
            let Ok(length @ 1..) = rustix::io::read(&file, &mut buffer) else {
                // A last line need not end.
                self.feed(&mut search, b"\n");
                return;
            };
            if self.feed(&mut search, &buffer[..length]) {
                return;
            }
        }
    }

    /// Whether the user was found.
    fn feed(&mut self, search: &mut Search, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| search.byte(*byte, self))
    }

    fn begin(&mut self) {
        self.bytes[..PREFIX.len()].copy_from_slice(PREFIX);
        self.length = PREFIX.len();
    }

    /// Whether there was room.
    fn push(&mut self, byte: u8) -> bool {
        // The last one stays for the null.
        if self.length + 1 >= self.bytes.len() || byte == 0 {
            return false;
        }
        self.bytes[self.length] = byte;
        self.length += 1;
        true
    }

    fn end(&mut self) {
        self.bytes[self.length] = 0;
    }
}

/// Where a reader of the file is.
#[derive(Debug)]
struct Search {
    wanted: u32,
    field: u8,
    /// The number in the third field; none when it is not one.
    uid: Option<u32>,
    digits: u32,
    fits: bool,
}

impl Search {
    const fn new(wanted: u32) -> Self {
        Self {
            wanted,
            field: 0,
            uid: Some(0),
            digits: 0,
            fits: true,
        }
    }

    /// Takes a byte; true when the line was the user's and is complete.
    fn byte(&mut self, byte: u8, home: &mut Home) -> bool {
        match byte {
            b'\n' => {
                let is_his = self.field >= HOME && self.digits > 0 && self.uid == Some(self.wanted);
                let found = is_his && self.fits && home.length > PREFIX.len();
                if found {
                    home.end();
                } else {
                    home.length = 0;
                    *self = Self::new(self.wanted);
                }
                return found;
            }
            b':' => {
                self.field = self.field.saturating_add(1);
                if self.field == HOME {
                    home.begin();
                }
            }
            digit if self.field == UID => {
                let value = char::from(digit).to_digit(10);
                let next = |uid: u32| uid.checked_mul(10)?.checked_add(value?);
                self.uid = self.uid.and_then(next);
                self.digits += 1;
            }
            byte if self.field == HOME => self.fits &= home.push(byte),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(text: &[u8], uid: u32) -> Option<String> {
        let mut home = Home::none();
        let mut search = Search::new(uid);
        // In parts, as a file may come.
        let found = text.chunks(3).any(|part| home.feed(&mut search, part)) || home.feed(&mut search, b"\n");
        let variable = home.variable().map(|v| v.to_str().expect("text").to_owned());
        assert_eq!(found, variable.is_some());
        variable
    }

    #[test]
    fn the_first_line_of_the_user_counts() {
        let text = b"root:x:0:0:root:/root:/bin/sh\n\n# a comment\na:x:7:7::/a\nb:x:7:7::/b:/bin/sh\nc:x:8:8:c:/c";
        assert_eq!(home(text, 0).as_deref(), Some("HOME=/root"));
        assert_eq!(home(text, 7).as_deref(), Some("HOME=/a"));
        assert_eq!(home(text, 8).as_deref(), Some("HOME=/c"));
        assert_eq!(home(text, 9), None);
    }

    #[test]
    fn what_is_not_a_line_of_passwd_is_nobodys() {
        for text in [
            &b"x:x::0::/no:"[..],
            b"x:x:0",
            b":::::",
            b"x:x:0x0:0::/no",
            b"x:x:4294967296:0::/no",
            b"x:x:0:0:::",
            b"\0:\0:0:0::\0",
        ] {
            assert_eq!(home(text, 0), None, "{text:?}");
        }
        let mut long = b"x:x:0:0::/".to_vec();
        long.extend([b'a'; 2000]);
        long.extend(b"\ny:x:0:0::/fits\n");
        assert_eq!(home(&long, 0).as_deref(), Some("HOME=/fits"));
    }
}
