use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Links, Result};

/// A network namespace, held by a descriptor.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Makes a new, empty namespace: a loopback that is down. It goes when the last descriptor is closed and no process is in it;
    /// nothing outlives the program, however it ends.
    ///
    /// A short-lived thread makes it; the calling thread stays where it is.
    ///
    /// # Errors
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`.
    pub fn create() -> Result<Self> {
        let fd = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| io("making a network namespace", errno.into()))?;
            open(Path::new("/proc/thread-self/ns/net"))
        })?;
        Ok(Self { fd })
    }

    /// The namespace of a path: `/proc/PID/ns/net`, or a file it is bound to.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the path is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fd = open(path)?;
        let kind =
            rustix::fs::fstatfs(&fd).map_err(|errno| io(format!("looking at {}", path.display()), errno.into()))?;
        // Every kind of namespace lives on nsfs; that it is a network one shows when a thread enters it.
        if kind.f_type != NSFS_MAGIC {
            return Err(Error::NotANamespace { path: path.to_owned() });
        }
        Ok(Self { fd })
    }

    /// A path that stands for this namespace while this value lives: what `linux.namespaces[].path` of a runtime spec takes.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Runs `work` on a thread of its own inside the namespace and returns what it returns. Sockets made there stay in the namespace wherever they are used.
    ///
    /// # Errors
    /// When the thread can't enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| io("entering a network namespace", errno.into()))?;
            Ok(work())
        })
    }

    /// Its links, to look at and to change.
    ///
    /// # Errors
    /// When the namespace can't be entered or no netlink socket can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime with an IO driver.
    pub fn links(&self) -> Result<Links> {
        let runtime = tokio::runtime::Handle::current();
        let connection = self.run(|| {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })?;
        let (connection, handle, _) = connection.map_err(|source| io("making a netlink socket", source))?;
        Ok(Links::new(tokio::spawn(connection), handle))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|source| io(format!("opening {}", path.display()), source))
}

/// Runs `work` on a thread that ends with it, so that a namespace that the thread entered is entered by no one else.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn io(action: impl Into<String>, source: std::io::Error) -> Error {
    Error::Io {
        action: action.into(),
        source,
    }
}
