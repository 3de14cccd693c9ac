//! What is kept beside the bytes of a partial ingest: what was asked for, and how far it is proved.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oci_spec::image::{Digest, DigestAlgorithm};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::layout::{Sync, replace_file};
use crate::error::IoContext;
use crate::hash::Hasher;
use crate::{Expected, Result};

/// Bumped when a record's meaning changes, which includes the minor version of `sha2`: a record of another version
/// counts as none.
const VERSION: u32 = 1;

/// No record of ours is longer; a reference may be, and then the ingest can't be resumed.
const LIMIT: u64 = 64 << 10;

/// What was asked for (`ref`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    version: u32,
    pub(crate) reference: String,
    digest: Option<Digest>,
    size: Option<u64>,
    /// Nanoseconds since 1970.
    started: u64,
}

impl Request {
    pub(crate) fn new(reference: &str, expected: &Expected, started: SystemTime) -> Self {
        Self {
            version: VERSION,
            reference: reference.into(),
            digest: expected.digest.clone(),
            size: expected.size,
            started: to_nanos(started),
        }
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected {
            digest: self.digest.clone(),
            size: self.size,
        }
    }

    pub(crate) fn started(&self) -> SystemTime {
        from_nanos(self.started)
    }

    pub(crate) fn load(directory: &Path) -> Option<Self> {
        load(&directory.join("ref")).filter(|request: &Self| request.version == VERSION)
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        save(&directory.join("ref"), self, Sync::Later)
    }
}

/// How far the bytes in `data` are known, with the state of their hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    version: u32,
    pub(crate) offset: u64,
    algorithm: String,
    hash: String,
    /// The boot in which it was saved, when the bytes were handed to the kernel but not yet to the disk: they outlive
    /// the process, not the machine.
    boot: Option<String>,
}

impl Checkpoint {
    pub(crate) fn new(offset: u64, hasher: &Hasher) -> Self {
        Self {
            version: VERSION,
            offset,
            algorithm: hasher.algorithm().to_string(),
            hash: hasher.save(),
            boot: None,
        }
    }

    /// The furthest that can be relied on, with its hash.
    pub(crate) fn load(directory: &Path) -> Option<(u64, Hasher)> {
        let volatile = load::<Self>(&volatile_path(directory)).filter(|point| point.boot.as_deref() == boot());
        let durable = load::<Self>(&durable_path(directory)).filter(|point| point.boot.is_none());
        let length = fs::symlink_metadata(directory.join("data")).ok()?.len();
        [volatile, durable]
            .into_iter()
            .flatten()
            .filter(|point| point.version == VERSION && point.offset <= length)
            .max_by_key(|point| point.offset)
            .and_then(|point| {
                let hasher = Hasher::restore(&DigestAlgorithm::from(point.algorithm.as_str()), &point.hash)?;
                Some((point.offset, hasher))
            })
    }

    /// Saves one whose bytes are on disk.
    pub(crate) fn save_durable(self, directory: &Path) -> Result<()> {
        save(&durable_path(directory), &self, Sync::Now)
    }

    /// Saves one whose bytes the kernel has.
    pub(crate) fn save_volatile(mut self, directory: &Path) -> Result<()> {
        self.boot = boot().map(str::to_owned);
        // Without a boot to tie it to it would claim to be durable.
        if self.boot.is_none() {
            Ok(())
        } else {
            save(&volatile_path(directory), &self, Sync::Later)
        }
    }

    /// Forgets all, before the bytes that they speak of are thrown away.
    pub(crate) fn forget(claim: &Claim) -> Result<()> {
        let mut gone = false;
        for path in [volatile_path(claim.path()), durable_path(claim.path())] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => {
                    removed.during("removing", path)?;
                    gone = true;
                }
            }
        }
        if gone { claim.sync() } else { Ok(()) }
    }
}

fn volatile_path(directory: &Path) -> PathBuf {
    directory.join("progress")
}

fn durable_path(directory: &Path) -> PathBuf {
    directory.join("durable")
}

fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(LIMIT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn save<T: Serialize>(path: &Path, record: &T, sync: Sync) -> Result<()> {
    let text = serde_json::to_vec(record).expect("a record of strings and numbers is JSON");
    replace_file(path, &text, sync)
}

fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .map(|id| id.trim().to_owned())
    })
    .as_deref()
}

pub(crate) fn to_nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn from_nanos(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}
