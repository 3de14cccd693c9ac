//! What the tests share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test program uses a part

pub mod layer;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// A tree of files as text, one line a file: what two trees are compared by.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Tree(pub BTreeMap<String, String>);

impl Tree {
    /// Reads type, mode, owner, mtime, size, link count and group, device, attributes and content of each file below `root`.
    pub fn read(root: &Path) -> Self {
        let mut tree = BTreeMap::new();
        let mut groups = BTreeMap::new();
        walk(root, b"", &mut tree, &mut groups);
        Self(tree)
    }

    /// Panics with the lines that differ.
    pub fn assert_same(&self, other: &Self, what: &str) {
        let mut report = String::new();
        for (path, line) in &self.0 {
            match other.0.get(path) {
                Some(got) if got == line => {}
                Some(got) => writeln!(report, "{path}\n  expected {line}\n  got      {got}").unwrap(),
                None => writeln!(report, "{path}\n  expected {line}\n  is missing").unwrap(),
            }
        }
        for (path, got) in &other.0 {
            if !self.0.contains_key(path) {
                writeln!(report, "{path}\n  is too much: {got}").unwrap();
            }
        }
        assert!(report.is_empty(), "{what}: trees differ\n{report}");
    }

    /// The same without modification times of directories that match.
    pub fn without_mtime(mut self, which: impl Fn(&str) -> bool) -> Self {
        for (path, line) in &mut self.0 {
            if which(path) {
                *line = line
                    .split(' ')
                    .filter(|word| !word.starts_with("mtime="))
                    .collect::<Vec<_>>()
                    .join(" ");
            }
        }
        self
    }

    /// Only the names.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

fn walk(root: &Path, path: &[u8], tree: &mut BTreeMap<String, String>, groups: &mut BTreeMap<(u64, u64), String>) {
    let full = root.join(std::ffi::OsStr::from_bytes(path));
    let meta = std::fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let name = path.escape_ascii().to_string();
    let mut line = format!(
        "mode={:o} owner={}:{} mtime={}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    if kind.is_file() {
        write!(line, " size={} sha256={}", meta.len(), hash(&full)).unwrap();
    } else if kind.is_symlink() {
        write!(
            line,
            " target={}",
            std::fs::read_link(&full).unwrap().as_os_str().as_bytes().escape_ascii()
        )
        .unwrap();
    } else if kind.is_char_device() || kind.is_block_device() {
        write!(line, " device={:x}", meta.rdev()).unwrap();
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        let first = groups.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
        write!(line, " links={} first={first}", meta.nlink()).unwrap();
    }
    for (key, value) in xattrs(&full) {
        write!(line, " {}={}", key.escape_ascii(), value.escape_ascii()).unwrap();
    }
    tree.insert(name, line);
    if kind.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&full)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name.as_bytes());
            walk(root, &inner, tree, groups);
        }
    }
}

fn hash(path: &Path) -> String {
    // A file of gigabytes that is nearly all hole need not be read whole: its ends and its data are enough.
    let mut file = std::fs::File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let mut hash = Sha256::new();
    if len < 1 << 28 {
        std::io::copy(&mut file, &mut HashWriter(&mut hash)).unwrap();
    } else {
        let mut at = 0;
        while let Ok(start) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start)).unwrap();
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(start)).unwrap();
            let mut data = Vec::new();
            (&file).take(end - start).read_to_end(&mut data).unwrap();
            for (index, byte) in data.iter().enumerate().filter(|(_, b)| **b != 0) {
                hash.update((start + index as u64).to_le_bytes());
                hash.update([*byte]);
            }
            at = end;
        }
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All extended attributes of a file, not following a link.
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 65536];
        let key = CString::new(name).unwrap();
        if let Ok(len) = rustix::fs::lgetxattr(path, &key, &mut value[..]) {
            found.insert(name.to_vec(), value[..len].to_vec());
        }
    }
    found
}

/// Says why and gives true when the test can't run.
pub fn skip_unless_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        longshore_testing::skip("needs root");
    }
    !root
}
