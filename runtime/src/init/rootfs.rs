//! What is in the root: mounts, nodes, links, and what is written to /proc.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use longshore_linux::{AttrChange, MountAttr, mount_setattr};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstatfs, makedev, mknodat, openat, openat2,
    statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Child;
use super::mounts;
use super::report::{At, Call, Failure};
use super::resolve::{directory, open_in_root};
use crate::plan::op::{NodeOp, Op, Slot};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

impl Child<'_> {
    pub(super) fn perform_rootfs(&mut self, op: &Op) -> Result<(), Failure> {
        match op {
            Op::Propagate { propagation, depth } => mounts::propagate(c"/", *propagation, *depth),
            Op::OpenRoot => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = openat(CWD, c"/", flags, Mode::empty()).at(Call::Open)?;
                self.slots.set(Slot::ROOT, root);
                Ok(())
            }
            Op::OpenPlace { slot, path } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let place = openat(CWD, path.as_c_str(), flags, Mode::empty()).at(Call::Open)?;
                self.slots.set(*slot, place);
                Ok(())
            }
            Op::MoveRoot(slot) => {
                // A directory of the host is not kept open longer than it is needed.
                let place = self.slots.take(*slot).ok_or(Errno::BADF).at(Call::Protocol)?;
                mounts::attach(self.root()?, place)
            }
            Op::Root {
                source,
                attr,
                propagation,
            } => {
                let detached = self.detached(source)?;
                let root = mounts::make_root(detached, source, *attr, propagation)?;
                // SAFETY: make_root gave the descriptor away.
                self.slots.set(Slot::ROOT, unsafe { OwnedFd::from_raw_fd(root) });
                Ok(())
            }
            Op::Mount(mount) => {
                let detached = self.detached(&mount.source)?;
                let tree = mounts::mount_into(self.root()?, mount, detached)?;
                if let Some(slot) = mount.keep {
                    self.slots.set(slot, tree);
                }
                Ok(())
            }
            Op::Node(node) => make_node(self.root()?, node),
            Op::BindNode { host, at } => mounts::bind_node(self.root()?, host, at),
            Op::Symlink { parent, name, target } => {
                let parent = directory(self.root()?, parent)?;
                match symlinkat(target.as_c_str(), &parent, name.as_c_str()) {
                    Err(Errno::EXIST) => Ok(()),
                    answer => answer.at(Call::MakeLink),
                }
            }
            Op::Console(at) => mounts::bind_fd(self.root()?, self.slots.get(Slot::STDIN)?, at),
            Op::Directory(at) => directory(self.root()?, at).map(drop),
            Op::Sysctl { name, value } => self.sysctl(name, value),
            Op::Close(slot) => {
                let mount = self.slots.take(*slot).ok_or(Errno::BADF).at(Call::Protocol)?;
                mounts::close(mount)
            }
            Op::Mask(at) => mounts::mask(self.root()?, at),
            Op::ReadOnlyPath(at) => mounts::read_only_path(self.root()?, at),
            Op::RootAttr {
                set,
                propagation,
                depth,
            } => {
                let change = AttrChange {
                    set: *set,
                    clear: MountAttr::empty(),
                    propagation: *propagation,
                };
                mount_setattr(self.root()?, c"", *depth, change).at(Call::Attribute)
            }
            Op::PivotRoot(old) => mounts::enter_root(self.root()?, *old),
            _ => Err(Errno::NOSYS).at(Call::Protocol),
        }
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.slots.get(Slot::ROOT)
    }

    /// Writes below a procfs that this process has just mounted for itself: nobody can have put something else there.
    fn sysctl(&mut self, name: &CStr, value: &CStr) -> Result<(), Failure> {
        if self.proc.is_none() {
            self.proc = Some(own_proc()?);
        }
        let proc = self.proc.as_ref().ok_or(Errno::BADF).at(Call::Open)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(proc, name, flags, Mode::empty(), resolve).at(Call::Open)?;
        rustix::io::write(&file, value.to_bytes()).map(drop).at(Call::Write)
    }
}

/// A procfs of the child's own PID namespace, or, where a user namespace may not mount one, the host's, by its filesystem type.
fn own_proc() -> Result<OwnedFd, Failure> {
    let fresh = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|fs| fsconfig_create(&fs).map(|()| fs))
        .and_then(|fs| fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()));
    match fresh {
        Err(Errno::PERM) => host_proc(),
        answer => answer.at(Call::FsMount),
    }
}

fn host_proc() -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, c"/proc", flags, Mode::empty()).at(Call::Open)?;
    if fstatfs(&proc).at(Call::Open)?.f_type as u64 != PROC_SUPER_MAGIC {
        return Err(Errno::NODEV).at(Call::Open);
    }
    Ok(proc)
}

fn make_node(root: impl AsFd, node: &NodeOp) -> Result<(), Failure> {
    let parent = directory(root, &node.parent)?;
    let name = node.name.as_c_str();
    let kind = FileType::from_raw_mode(node.mode);
    let device = makedev(node.major, node.minor);
    match mknodat(&parent, name, kind, Mode::from_raw_mode(node.mode & 0o7777), device) {
        // One that is there is as good, if it is the same.
        Err(Errno::EXIST) => {
            let there = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).at(Call::MakeNode)?;
            let same =
                FileType::from_raw_mode(there.st_mode) == kind && (kind == FileType::Fifo || there.st_rdev == device);
            return if same {
                Ok(())
            } else {
                Err(Errno::EXIST).at(Call::MakeNode)
            };
        }
        answer => answer.at(Call::MakeNode)?,
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).at(Call::Owner)?;
    }
    Ok(())
}

/// Both sides of a new terminal in the devpts that is mounted in the root. The other side is opened through the master, not by a
/// path.
pub(super) fn open_terminal(root: impl AsFd, rows: u16, columns: u16, uid: u32) -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = open_in_root(root, c"dev/pts/ptmx", flags).at(Call::Terminal)?;
    if fstatfs(&master).at(Call::Terminal)?.f_type as u64 != DEVPTS_SUPER_MAGIC {
        return Err(Errno::NOTTY).at(Call::Terminal);
    }
    unlockpt(&master).at(Call::Terminal)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).at(Call::Terminal)?;
    // The devpts gives it to root; the program's user must be able to open it again.
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None).at(Call::Owner)?;
    if (rows, columns) != (0, 0) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).at(Call::Terminal)?;
    }
    Ok((master, slave))
}
