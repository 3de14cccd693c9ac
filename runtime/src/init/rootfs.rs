//! What is in the root: mounts, nodes, links, and what is written to /proc.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use longshore_linux::{AttrChange, MountAttr, mount_setattr};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Uid, fstat, fstatfs, makedev, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Child;
use super::report::{At, Call, Failure, Message};
use super::resolve::{directory, directory_at, open_in_root};
use super::{devices, hide, mounts, sources};
use crate::plan::op::{InRoot, Old, Op, Slot, Source, Target};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

impl<'a> Child<'a> {
    pub(super) fn perform_rootfs(&mut self, op: &'a Op) -> Result<(), Failure> {
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
            Op::MoveRoot { onto, old } => {
                // A directory of the host is not kept open longer than it is needed.
                let place = self.slots.take(*onto).ok_or(Errno::BADF).at(Call::Protocol)?;
                if *old == Old::CutOff {
                    mounts::cut_off(&place)?;
                }
                mounts::attach(self.root()?, place)
            }
            Op::Open { slot, path, depth } => {
                let opened = sources::open(path, *depth)?;
                self.slots.set(*slot, opened);
                Ok(())
            }
            Op::Root {
                assembly,
                source,
                attr,
                propagation,
            } => {
                self.assembly = *assembly;
                let detached = self.detached(source, attr.set)?;
                let root = mounts::make_root(*assembly, detached, source, *attr, propagation)?;
                // SAFETY: make_root gave the descriptor away.
                self.slots.set(Slot::ROOT, unsafe { OwnedFd::from_raw_fd(root) });
                Ok(())
            }
            Op::Mount(mount) => {
                let detached = self.detached(&mount.source, mount.attr.change.set)?;
                let tree = match (&mount.source, detached) {
                    (Source::There { params }, _) => {
                        return mounts::again(self.root()?, mount, params.as_deref(), self.assembly);
                    }
                    (_, Some(tree)) => tree,
                    (_, None) => mounts::tree_of(self.root()?, mount)?,
                };
                if mount.id_map.is_some() {
                    self.slots.send(Message::Map(self.step), tree.as_fd())?;
                    self.await_go()?;
                }
                let within = match mount.target {
                    Target::Within(slot) => Some(self.slots.get(slot)?),
                    _ => None,
                };
                mounts::mount_into(self.root()?, mount, &tree, within)?;
                if let Some(slot) = mount.keep {
                    self.slots.set(slot, tree);
                }
                Ok(())
            }
            Op::Node(node) => {
                let name = self.open_parent(&node.at)?;
                let directory = self.beside()?;
                devices::make_node(self.root()?, directory, name, node)
            }
            Op::BindNode(node) => devices::bind_node(self.root()?, node),
            Op::Symlink { at, target, over } => {
                let name = self.open_parent(at)?;
                devices::link(self.beside()?, name, target, *over)
            }
            Op::Console(at) => devices::bind_console(self.root()?, self.slots.get(Slot::STDIN)?, at),
            Op::Directory(at) => directory(self.root()?, at).map(drop),
            Op::Sysctl { name, value } => self.sysctl(name, value),
            Op::Close(slot) => {
                let mount = self.slots.take(*slot).ok_or(Errno::BADF).at(Call::Protocol)?;
                mounts::close(mount, self.assembly)
            }
            Op::LetGo(slot) => {
                drop(self.slots.take(*slot));
                Ok(())
            }
            Op::Mask { at, label } => mounts::mask(self.slots.get(Slot::ROOT)?, at, label.as_deref(), &mut self.empty),
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
            Op::ChangeRoot => mounts::change_root(self.root()?),
            Op::PivotRoot(old) => mounts::enter_root(self.root()?, *old),
            Op::EnterByMove => {
                let proc = own_proc()?;
                hide::enter_by_move(self.root()?, &proc)
            }
            Op::OwnNull => devices::own_null(),
            _ => Err(Errno::NOSYS).at(Call::Protocol),
        }
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.slots.get(Slot::ROOT)
    }

    /// Opens the directory of a path, made if it is missing; the name in it. It stays open for those that follow: `/dev` has a dozen.
    fn open_parent(&mut self, at: &'a InRoot) -> Result<&'a CStr, Failure> {
        let (path, name) = at.split().ok_or(Errno::ISDIR).at(Call::OpenTarget)?;
        if self.beside.as_ref().is_none_or(|(open, _)| *open != path) {
            let directory = directory_at(self.root()?, path)?;
            self.beside = Some((path, directory));
        }
        Ok(name)
    }

    fn beside(&self) -> Result<BorrowedFd<'_>, Failure> {
        let open = self.beside.as_ref().map(|(_, directory)| directory.as_fd());
        open.ok_or(Errno::BADF).at(Call::OpenTarget)
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

/// The container's own null device in the place of the host's: that one is a way to a mount of the host, and CRIU can't save it. None
/// for another stream, and in a container without one.
pub(super) fn own_null(root: BorrowedFd<'_>, stream: impl AsFd) -> Option<OwnedFd> {
    let is_null = |fd: BorrowedFd<'_>| {
        fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
        })
    };
    if !is_null(stream.as_fd()) {
        return None;
    }
    let path = c"dev/null";
    let found = open_in_root(root, path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    if !is_null(found.as_fd()) {
        return None;
    }
    let opened = open_in_root(root, path, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY).ok()?;
    is_null(opened.as_fd()).then_some(opened)
}
