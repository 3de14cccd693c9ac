use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::time::SystemTime;

use async_trait::async_trait;
use longshore_linux::Mount;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Labels of a snapshot.
pub type Labels = BTreeMap<String, String>;

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// Writable, made by [`prepare`](Snapshotter::prepare).
    Active,
    /// Read-only, made by [`view`](Snapshotter::view).
    View,
    /// Read-only for ever, made by [`commit`](Snapshotter::commit); the only kind that can be a parent.
    Committed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::View => "a view",
            Self::Committed => "committed",
        })
    }
}

/// What a snapshotter knows of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Info {
    /// Key of an active snapshot or view; name of a committed one (for image layers: the chainID).
    pub key: String,
    /// What it is made from.
    pub parent: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Labels.
    pub labels: Labels,
    /// When it was made.
    pub created: SystemTime,
    /// When it last changed kind or labels.
    pub updated: SystemTime,
}

impl Info {
    /// An info made now.
    pub fn new(key: impl Into<String>, parent: Option<String>, kind: Kind, labels: Labels) -> Self {
        let now = SystemTime::now();
        Self {
            key: key.into(),
            parent,
            kind,
            labels,
            created: now,
            updated: now,
        }
    }
}

/// What a snapshot takes on disk, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of its own (blocks allocated, not file lengths).
    pub bytes: u64,
    /// Inodes of its own.
    pub inodes: u64,
}

/// Where a snapshotter may have layers that nobody applied to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Nowhere: it has what was committed to it.
    Local,
    /// Elsewhere too (lazily loaded ones, those of other machines). Asked to prepare a snapshot whose label `containerd.io/snapshot.ref` names a committed one that it can make itself,
    /// it makes that one and answers [`AlreadyExists`](crate::ErrorKind::AlreadyExists). Other labels below `containerd.io/snapshot/` tell it where from.
    Remote,
}

/// **Port**: where root filesystems come from. The model is containerd's.
///
/// Nothing here mounts anything: a snapshotter says *what* to mount, the executor does it inside the container's mount namespace.
///
/// # Contract
/// - Keys and names share one space. A committed snapshot never changes.
/// - *Durable*: what was acknowledged survives the end of the process, however it comes, and what was interrupted is not visible after the next
///   open; its files are removed by [`cleanup`](Self::cleanup). A [`commit`](Self::commit), and the removal of a committed snapshot, survive a loss of power
///   too: all data of the snapshot is durable before the snapshot is visible. What was done to active snapshots and views in the last moments before a
///   loss of power may be lost, each call whole (their files are not durable either, and a sync takes longer than all the rest of `prepare`).
/// - *Concurrent*: every method may be called from any task at any time; of two calls for the same key one wins.
/// - *Cancel-safe*: a dropped future had its effect whole or not at all.
#[async_trait]
pub trait Snapshotter: Debug + Send + Sync + 'static {
    /// A short name (`overlay`), used in labels, events and metadata.
    fn name(&self) -> &str;

    /// Whether it may have layers elsewhere, which then need not be fetched. By default it has none.
    fn reach(&self) -> Reach {
        Reach::Local
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn stat(&self, key: &str) -> Result<Info>;

    /// Makes a writable snapshot on top of `parent` (empty if `None`).
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for the key, [`NotFound`](crate::ErrorKind::NotFound) for the parent,
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when the parent is not committed.
    async fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>>;

    /// Makes a read-only snapshot on top of `parent`.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    async fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>>;

    /// The mounts of an active snapshot or view.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) for a committed one.
    async fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// Turns the active snapshot `key` into the committed snapshot `name`; `key` is gone then.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for the key, [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for the name,
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it is not active.
    async fn commit(&self, key: &str, name: &str, labels: Labels) -> Result<()>;

    /// The same by who has counted already what the snapshot takes, as [`apply_layer`](crate::apply_layer) does: then nobody has to look through its files when
    /// [`usage`](Self::usage) is asked for. `None` is [`commit`](Self::commit), and so is any value for a snapshotter that keeps no account.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    async fn commit_counted(&self, key: &str, name: &str, labels: Labels, usage: Option<Usage>) -> Result<()> {
        let _ = usage;
        self.commit(key, name, labels).await
    }

    /// Removes a snapshot. It is gone when this returns; its files may go in the background, and [`cleanup`](Self::cleanup) waits for that.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) while it is a parent.
    async fn remove(&self, key: &str) -> Result<()>;

    /// What it takes on disk.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn usage(&self, key: &str) -> Result<Usage>;

    /// All snapshots, ordered by key.
    async fn walk(&self) -> Result<Vec<Info>>;

    /// Removes files that belong to no snapshot, left by an interruption, and waits for those of removed snapshots to be gone.
    async fn cleanup(&self) -> Result<()>;
}
