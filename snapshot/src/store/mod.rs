//! What our local snapshotters share: which snapshots there are and where their directories are.

mod log;
mod remover;
mod short;
mod state;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;

use self::log::{Log, Record, io};
use self::remover::Remover;
use self::state::State;
use crate::remove::remove_all;
use crate::{Error, Info, Kind, Labels, Result, Usage, at};

pub(crate) use self::log::Entry;

/// The snapshots below a root directory:
///
/// ```text
/// lock             held while open
/// snapshots.log    which snapshots there are
/// snapshots/<id>/  their directories
/// l/<id>           short names of some of them, the number in letters: symbolic links
/// ```
///
/// A directory is made before its record is written, and loses its name, to `<id>.gone`, after it is dropped; what has no record is removed at the next open.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    dirs: OwnedFd,
    /// Before the lock, which is let go of after the last directory is gone.
    remover: Remover,
    /// Taken before `state` by whoever changes something.
    log: Mutex<Log>,
    state: Mutex<State>,
    idle: Condvar,
    unsynced: AtomicBool,
    _lock: File,
}

/// A snapshot being made. Its key and directory are reserved until it is published or dropped.
#[must_use = "dropping it gives the snapshot up"]
pub(crate) struct Pending<'a> {
    store: &'a Store,
    entry: Option<Entry>,
    /// Directories of what it is made from, the topmost first.
    pub(crate) parents: Vec<u64>,
}

impl Store {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let dirs_path = root.join("snapshots");
        builder.create(&dirs_path).map_err(io("creating", &dirs_path))?;
        let root = root.canonicalize().map_err(io("resolving", root))?;
        let dirs_path = root.join("snapshots");
        let lock = lock(&root)?;
        let dirs =
            rustix::fs::open(&dirs_path, at::DIRECTORY, Mode::empty()).map_err(at::failed("opening", &dirs_path))?;
        let another = dirs.try_clone().map_err(io("opening", &dirs_path))?;
        let remover = Remover::new(another, dirs_path);
        let (log, records) = Log::open(root.join("snapshots.log"))?;
        log::sync_parent(&root.join("snapshots.log"))?;
        let store = Self {
            root,
            dirs,
            remover,
            log: Mutex::new(log),
            state: Mutex::new(State::replay(records)),
            idle: Condvar::new(),
            unsynced: AtomicBool::new(false),
            _lock: lock,
        };
        store.recover()?;
        Ok(store)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds the snapshots' directories, opened.
    pub(crate) fn dirs(&self) -> &OwnedFd {
        &self.dirs
    }

    /// The path of `name` in the directory of a snapshot.
    pub(crate) fn path(&self, id: u64, name: &str) -> PathBuf {
        self.root.join(format!("snapshots/{id}/{name}"))
    }

    pub(crate) fn get(&self, key: &str) -> Result<Entry> {
        self.state().get(key).cloned()
    }

    pub(crate) fn walk(&self) -> Vec<Info> {
        self.state().entries.values().map(|entry| entry.info.clone()).collect()
    }

    /// A snapshot and the directories of what it is made from.
    pub(crate) fn with_parents(&self, key: &str) -> Result<(Entry, Vec<u64>)> {
        let state = self.state();
        let entry = state.get(key)?.clone();
        let parents = state.chain(entry.info.parent.as_deref())?;
        Ok((entry, parents))
    }

    /// Reserves a key and a directory.
    pub(crate) fn begin(&self, key: &str, parent: Option<&str>, kind: Kind, labels: Labels) -> Result<Pending<'_>> {
        let mut state = self.state();
        state.check_free(key)?;
        let parents = state.chain(parent)?;
        if let Some(parent) = parent {
            if state.busy.contains(parent) {
                return Err(Error::NotFound(parent.to_owned()));
            }
            state.adopt(parent.to_owned(), key.to_owned());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.reserved.insert(key.to_owned(), id);
        Ok(Pending {
            store: self,
            entry: Some(Entry {
                id,
                info: Info::new(key, parent.map(str::to_owned), kind, labels),
                usage: None,
            }),
            parents,
        })
    }

    /// Turns an active snapshot into a committed one, after `make_durable`.
    pub(crate) fn commit(
        &self,
        key: &str,
        name: &str,
        labels: Labels,
        usage: Option<Usage>,
        make_durable: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.claim(key);
        let entry = match state.get(key) {
            Ok(entry) if entry.info.kind == Kind::Active => entry.clone(),
            Ok(entry) => {
                let actual = entry.info.kind;
                return Err(Error::WrongKind {
                    key: key.to_owned(),
                    actual,
                    needed: "an active one",
                });
            }
            Err(error) => return Err(error),
        };
        state.check_free(name)?;
        state.reserved.insert(name.to_owned(), entry.id);
        let busy = Busy::new(self, &mut state, key, Some(name));
        drop(state);

        make_durable(entry.id)?;
        let now = SystemTime::now();
        let info = Info {
            key: name.to_owned(),
            kind: Kind::Committed,
            labels,
            updated: now,
            ..entry.info
        };
        let committed = Entry {
            id: entry.id,
            info,
            usage,
        };
        let mut log = self.log();
        log.append(&Record::Put(committed.clone()))?;
        log.sync()?;
        let mut state = self.state();
        state.take(key);
        state.insert(committed);
        drop(state);
        drop(busy);
        self.tidy(&mut log)
    }

    /// Takes a snapshot out of the log; its directory is the caller's to remove. The record of a committed one is durable first, so that none
    /// comes back without its files.
    pub(crate) fn forget(&self, key: &str) -> Result<Entry> {
        let mut state = self.claim(key);
        let entry = state.get(key)?.clone();
        if let Some(child) = state.child_of(key) {
            return Err(Error::HasChildren {
                key: key.to_owned(),
                child: child.clone(),
            });
        }
        let busy = Busy::new(self, &mut state, key, None);
        drop(state);

        let mut log = self.log();
        log.append(&Record::Drop(entry.id))?;
        if entry.info.kind == Kind::Committed {
            log.sync()?;
        }
        self.state().take(key);
        drop(busy);
        self.tidy(&mut log)?;
        Ok(entry)
    }

    /// Keeps what somebody counted for a committed snapshot.
    pub(crate) fn keep_usage(&self, key: &str, id: u64, usage: Usage) -> Result<()> {
        let mut log = self.log();
        let mut state = self.state();
        match state.entries.get_mut(key) {
            Some(entry) if entry.id == id && entry.info.kind == Kind::Committed => {
                entry.usage = Some(usage);
                log.append(&Record::Put(entry.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Has a snapshot's directory removed. It loses its name at once, so that it is never found half emptied.
    pub(crate) fn remove_dir(&self, id: u64) -> Result<()> {
        let (name, gone) = (id.to_string(), format!("{id}.gone"));
        let path = self.path(id, "");
        self.remove_short_name(id);
        match rustix::fs::renameat(&self.dirs, &name, &self.dirs, &gone) {
            Ok(()) => {
                self.remover.remove(gone);
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(at::failed("removing", path)(errno)),
        }
    }

    /// Removes directories that belong to no snapshot.
    pub(crate) fn cleanup(&self) -> Result<()> {
        self.remover.wait();
        let path = self.root.join("snapshots");
        // First the list: what is made after it is not in it.
        let names = at::list(&self.dirs).map_err(at::failed("reading", &path))?;
        let known: HashSet<u64> = {
            let state = self.state();
            let made = state.entries.values().map(|entry| entry.id);
            made.chain(state.reserved.values().copied()).collect()
        };
        for (name, _) in names {
            let id = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
            if !id.is_some_and(|id| known.contains(&id)) {
                remove_all(&self.dirs, &name).map_err(at::failed("removing what is left in", &path))?;
            }
        }
        self.clean_short_names(&known)
    }

    /// Whether there is something to sync that nobody has undertaken to sync; the caller undertakes it by asking.
    pub(crate) fn wants_sync(&self) -> bool {
        !self.unsynced.swap(true, Ordering::AcqRel)
    }

    /// Makes all changes durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.unsynced.store(false, Ordering::Release);
        let file = self.log().handle()?;
        file.sync_data().map_err(io("syncing", &self.root))
    }

    /// After a loss of power, an active snapshot may be in the log whose directory was not yet, or no longer, on disk: it is not there.
    fn recover(&self) -> Result<()> {
        let mut lost = Vec::new();
        {
            let mut state = self.state();
            for (name, _) in at::list(&self.dirs).map_err(at::failed("reading", &self.root))? {
                let digits: String = name
                    .iter()
                    .map(|b| char::from(*b))
                    .take_while(char::is_ascii_digit)
                    .collect();
                if let Ok(id) = digits.parse::<u64>() {
                    state.next_id = state.next_id.max(id.saturating_add(1));
                }
            }
            for entry in state.entries.values().filter(|entry| entry.info.kind == Kind::Active) {
                // A committed one was durable before it was acknowledged; if its files are gone, using it says so.
                if at::stat(&self.dirs, format!("{}/fs", entry.id).as_bytes()).is_err() {
                    lost.push((entry.info.key.clone(), entry.id));
                }
            }
        }
        for (key, id) in lost {
            tracing::warn!(
                key,
                "the directory of an active snapshot is missing, as after a loss of power; the snapshot is dropped"
            );
            self.log().append(&Record::Drop(id))?;
            self.state().take(&key);
        }
        self.cleanup()
    }

    fn tidy(&self, log: &mut Log) -> Result<()> {
        let state = self.state();
        if log.is_wasteful(state.entries.len()) {
            log.rewrite(state.entries.values())?;
        }
        Ok(())
    }

    /// The state, once no other call is at work on `key`.
    fn claim(&self, key: &str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while state.busy.contains(key) {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<'_> {
    pub(crate) fn id(&self) -> u64 {
        self.entry.as_ref().expect("there until published").id
    }

    /// Makes the snapshot visible.
    pub(crate) fn publish(mut self) -> Result<()> {
        let store = self.store;
        let mut log = store.log();
        log.append(&Record::Put(self.entry.clone().expect("there until published")))?;
        if let Some(entry) = self.entry.take() {
            let mut state = store.state();
            state.reserved.remove(&entry.info.key);
            state.insert(entry);
        }
        store.tidy(&mut log)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        if let Err(error) = self.store.remove_dir(entry.id) {
            tracing::warn!(%error, "what a failed snapshot left is removed at the next cleanup");
        }
        let mut state = self.store.state();
        state.reserved.remove(&entry.info.key);
        if let Some(parent) = &entry.info.parent {
            state.disown(parent, &entry.info.key);
        }
    }
}

/// A key that a call is at work on, and the name that it will take.
struct Busy<'a> {
    store: &'a Store,
    key: String,
    name: Option<String>,
}

impl<'a> Busy<'a> {
    fn new(store: &'a Store, state: &mut State, key: &str, name: Option<&str>) -> Self {
        state.busy.insert(key.to_owned());
        Self {
            store,
            key: key.to_owned(),
            name: name.map(str::to_owned),
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        state.busy.remove(&self.key);
        if let Some(name) = &self.name {
            state.reserved.remove(name);
        }
        self.store.idle.notify_all();
    }
}

/// Takes the lock of a root, or says who has it.
fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io("opening", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = (&file).take(32).read_to_string(&mut holder);
            return Err(Error::InUse {
                path: root.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(errno) => return Err(at::failed("locking", &path)(errno)),
    }
    let pid = format!("{}\n", std::process::id());
    file.rewind()
        .and_then(|()| file.set_len(0))
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(io("writing", &path))?;
    Ok(file)
}
