use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use longshore_linux::read_procfs;
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::facts::Brief;
use crate::cgroup::{Location, Unit};
use crate::host::io_error;
use crate::{ContainerId, Error, ExitStatus, Keyring, Lifetime, Result, resctrl};

/// A process that is not mistaken for a later one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessName {
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22).
    pub(crate) start: u64,
}

impl ProcessName {
    /// Names a process that is known to be there: a child that is not reaped, or the caller.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = read_procfs(&path).map_err(io_error(format!("read {path}")))?;
        let stat = String::from_utf8_lossy(&stat);
        start_time(&stat)
            .map(|start| Self { pid, start })
            .ok_or_else(|| Error::Corrupt {
                path: path.into(),
                reason: "it has no start time".into(),
            })
    }

    /// Whether the process is still there.
    pub(crate) fn lives(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }
}

/// The start time of a process, by its `stat` file.
pub(crate) fn start_time(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, and may have spaces and parentheses in it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Tells one record from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    inode: u64,
    at: (i64, i64),
}

/// What is on disk about a container: written when it is created, and again when its limits change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) init: ProcessName,
    pub(crate) lifetime: Lifetime,
    pub(crate) bundle: PathBuf,
    pub(crate) created: SystemTime,
    /// Its groups.
    pub(crate) cgroups: Location,
    /// Who records how init ended, if it has a monitor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) monitor: Option<ProcessName>,
    /// How many steps its program has, by which a step is found again.
    pub(crate) steps: u32,
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) keyring: Keyring,
    /// Its group of the resctrl filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<resctrl::Group>,
}

/// What is written first: who makes the container, and what must be cleaned up if it dies before it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim {
    /// The process that makes it; a tied container does not outlive it.
    pub(crate) owner: ProcessName,
    pub(crate) lifetime: Lifetime,
    pub(crate) cgroups_path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<resctrl::Group>,
}

/// The directory of one container below the state directory.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    id: ContainerId,
}

const RECORD: &str = "state.json";
const CLAIM: &str = "claim.json";
const EXIT: &str = "exit.json";
/// The socket on which init waits for the start; it is there as long as init waits.
pub(crate) const START_SOCKET: &str = "start.sock";
/// The socket on which a monitor waits for those who want to be attached.
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";

impl StateDir {
    pub(crate) fn new(root: &Path, id: &ContainerId) -> Self {
        Self {
            path: root.join(id.as_str()),
            id: id.clone(),
        }
    }

    /// A directory that is to be removed.
    pub(crate) fn at(path: &Path) -> Self {
        let id = ContainerId::new("swept").expect("it is a valid id");
        Self {
            path: path.to_owned(),
            id,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the id: the directory appears with its claim inside, or not at all.
    pub(crate) fn claim(&self, claim: &Claim) -> Result<()> {
        let fresh = Self {
            path: self.new_name(claim.owner.pid),
            id: self.id.clone(),
        };
        let fail = || format!("make the directory {}", self.path.display());
        fresh.remove()?;
        fs::DirBuilder::new()
            .mode(0o711)
            .create(&fresh.path)
            .map_err(io_error(fail()))?;
        let renamed = fresh.write(CLAIM, claim).and_then(|()| {
            match renameat_with(CWD, &fresh.path, CWD, &self.path, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST | Errno::NOTEMPTY) => Err(Error::AlreadyExists(self.id.to_string())),
                renamed => renamed.map_err(io_error(fail())),
            }
        });
        if renamed.is_err() {
            let _ = fresh.remove();
        }
        renamed
    }

    /// The directory as a descriptor of 3 or higher, for a monitor.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.path, flags, Mode::empty())
            .and_then(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, 3))
            .map_err(io_error(format!("open the directory {}", self.path.display())))
    }

    /// Who took it; none for a directory that is not of a container.
    pub(crate) fn claimed_by(&self) -> Result<Option<Claim>> {
        self.read(CLAIM)
    }

    /// Gives the id back: at once, whatever becomes of this program. Another one may just be recording an exit in the directory, and is done in a moment.
    pub(crate) fn remove(&self) -> Result<()> {
        let fail = || format!("remove the directory {}", self.path.display());
        let away = self.new_name(std::process::id());
        match fs::rename(&self.path, &away) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(io_error(fail()))?,
        }
        let mut tries = 0;
        loop {
            match fs::remove_dir_all(&away) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty && tries < 100 => tries += 1,
                removed => return removed.map_err(io_error(fail())),
            }
        }
    }

    /// A name beside it that is no container's, and that of this program's: what is left under it when the program has ended is swept.
    fn new_name(&self, pid: impl std::fmt::Display) -> PathBuf {
        // A tilde is in no id. The name is unique in the program, and the program among those that live.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = self.path.parent().unwrap_or(Path::new("/"));
        root.join(format!("new~{pid}~{number}"))
    }

    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        self.write(RECORD, record)
    }

    /// Writes the record where a monitor takes it from, who puts it in its place.
    pub(crate) fn prepare(&self, record: &Record) -> Result<()> {
        self.write_new(RECORD, record).map(drop)
    }

    /// The record; none while the container is being created.
    pub(crate) fn load(&self) -> Result<Option<Record>> {
        self.read(RECORD)
    }

    /// What is needed of it to know the container.
    pub(crate) fn load_brief(&self) -> Result<Option<Brief>> {
        self.read(RECORD)
    }

    /// Which record is there now.
    pub(crate) fn written(&self) -> Option<Written> {
        let metadata = fs::metadata(self.path.join(RECORD)).ok()?;
        Some(Written {
            inode: metadata.ino(),
            at: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(crate) fn save_exit(&self, exit: ExitStatus) -> Result<()> {
        self.write(EXIT, &exit)
    }

    pub(crate) fn load_exit(&self) -> Result<Option<ExitStatus>> {
        self.read(EXIT)
    }

    /// Readers see the old file or the new one, whole.
    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let temporary = self.write_new(name, value)?;
        let path = self.path.join(name);
        fs::rename(&temporary, &path).map_err(io_error(format!("write {}", path.display())))
    }

    /// Writes what is to become a file; returns where it is.
    fn write_new(&self, name: &str, value: &impl Serialize) -> Result<PathBuf> {
        let temporary = self.path.join(format!(".{name}.new"));
        let fail = || format!("write {}", temporary.display());
        let bytes = serde_json::to_vec(value)
            .map_err(std::io::Error::from)
            .map_err(io_error(fail()))?;
        let mut file: File = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io_error(fail()))?;
        file.write_all(&bytes).map_err(io_error(fail()))?;
        Ok(temporary)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path.join(name);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(io_error(format!("read {}", path.display())))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::Corrupt {
            path,
            reason: e.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = ProcessName::of(std::process::id() as i32).expect("we are there");
        assert!(own.lives());
        assert!(
            !ProcessName {
                start: own.start + 1,
                ..own
            }
            .lives(),
            "a pid that was reused is another process"
        );
    }

    #[test]
    fn an_id_is_taken_once_and_given_back() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = StateDir::new(root.path(), &"a".parse().expect("an id"));
        let owner = ProcessName::of(std::process::id() as i32).expect("we are there");
        let claim = Claim {
            owner,
            lifetime: Lifetime::Tied,
            cgroups_path: None,
            unit: None,
            resctrl: None,
        };
        dir.claim(&claim).expect("it is free");
        assert!(matches!(dir.claim(&claim), Err(Error::AlreadyExists(_))));
        assert_eq!(dir.claimed_by().expect("readable").map(|c| c.owner), Some(owner));
        assert_eq!(
            fs::read_dir(root.path()).expect("readable").count(),
            1,
            "nothing besides"
        );
        assert!(dir.load().expect("readable").is_none());
        let exit = ExitStatus::now(3);
        dir.save_exit(exit).expect("writable");
        assert_eq!(dir.load_exit().expect("readable"), Some(exit));
        dir.remove().expect("removable");
        dir.remove().expect("also when it is gone");
    }
}
