//! A writer of tar archives that writes whatever it is told.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use tar::{EntryType, Header};

/// A layer in the making.
#[derive(Clone, Default, Debug)]
pub struct Layer(pub Vec<u8>);

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// One entry with everything as given; names longer than the header takes go into a PAX record.
    pub fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut records = Vec::new();
        if path.len() > 100 {
            record(&mut records, "path", path);
        }
        if link.len() > 100 {
            record(&mut records, "linkpath", link);
        }
        if !records.is_empty() {
            self = self.pax(&records);
        }
        self.raw(kind, path, link, mode, content.len() as u64, content)
    }

    /// A PAX header with these records for the entry that follows.
    pub fn pax(self, records: &[u8]) -> Self {
        self.raw(EntryType::XHeader, b"pax", b"", 0o644, records.len() as u64, records)
    }

    pub fn raw(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, size: u64, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        let bytes = header.as_mut_bytes();
        let len = path.len().min(100);
        bytes[..len].copy_from_slice(&path[..len]);
        let len = link.len().min(100);
        bytes[157..157 + len].copy_from_slice(&link[..len]);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        if kind.is_character_special() || kind.is_block_special() {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", 0o644, content.as_bytes())
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", 0o755, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    pub fn xattr(self, key: &str, value: &[u8]) -> Self {
        let mut records = Vec::new();
        record(&mut records, &format!("SCHILY.xattr.{key}"), value);
        self.pax(&records)
    }

    /// The archive with its end marker.
    pub fn done(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(format!("{len} {key}=").into_bytes());
    records.extend(value);
    records.push(b'\n');
}
