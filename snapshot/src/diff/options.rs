use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::Digest;
use rustix::fs::Timespec;

use crate::Ownership;

/// How a layer is made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DiffOptions {
    /// Whose the files in the layer are: as in the tree, or ([`Ownership::Caller`]) root's, for a tree in which all are an ordinary user's.
    pub ownership: Ownership,
    /// Files changed after this get this modification time (`SOURCE_DATE_EPOCH` of reproducible builds).
    pub latest: Option<SystemTime>,
}

impl DiffOptions {
    /// Sets whose the files are.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// No modification time in the layer is later.
    #[must_use]
    pub fn latest(mut self, latest: SystemTime) -> Self {
        self.latest = Some(latest);
        self
    }

    pub(super) fn clamped(&self, mtime: Timespec) -> Timespec {
        // A latest time before 1970 is 1970's beginning.
        let latest = self
            .latest
            .map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default());
        match latest {
            Some(latest) => {
                let latest = Timespec {
                    tv_sec: latest.as_secs() as i64,
                    tv_nsec: latest.subsec_nanos().into(),
                };
                let earlier = (mtime.tv_sec, mtime.tv_nsec) <= (latest.tv_sec, latest.tv_nsec);
                if earlier { mtime } else { latest }
            }
            None => mtime,
        }
    }
}

/// The layer that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diffed {
    /// What its bytes hash to (sha256): the diffID for the image's config.
    pub diff_id: Digest,
    /// Its bytes.
    pub size: u64,
    /// Its entries, whiteouts among them.
    pub entries: u64,
    /// What the snapshot has and a layer can't.
    pub left_out: LeftOut,
}

/// What no layer can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Sockets.
    pub sockets: u64,
    /// Files whose names begin with `.wh.`, and so would hide others.
    pub names: u64,
    /// Devices 0:0, which overlay takes for whiteouts.
    pub devices: u64,
}

/// How a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It was, and is different; or something in it is.
    Changed,
    /// It is gone.
    Deleted,
}

/// The letter of `docker diff`.
impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "A",
            Self::Changed => "C",
            Self::Deleted => "D",
        })
    }
}

/// A path that changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// From the root, absolute.
    pub path: PathBuf,
}

/// A line of `docker diff`; bytes that would disturb a terminal are escaped.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        for chunk in self.path.as_os_str().as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c.is_control() {
                    true => write!(f, "{}", c.escape_default())?,
                    false => write!(f, "{c}")?,
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}
