use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use bitflags::bitflags;
use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

bitflags! {
    /// Attributes of a mount (mount_setattr(2), `MOUNT_ATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MountAttr: u64 {
        /// Read-only.
        const RDONLY = 0x01;
        /// Set-user-id bits and file capabilities do nothing.
        const NOSUID = 0x02;
        /// Device nodes do not open.
        const NODEV = 0x04;
        /// No program executes.
        const NOEXEC = 0x08;
        /// The mask of the three access-time modes; relatime is none of the bits.
        const ATIME = 0x70;
        /// Access times stay.
        const NOATIME = 0x10;
        /// Every access is noted.
        const STRICTATIME = 0x20;
        /// Access times of directories stay.
        const NODIRATIME = 0x80;
        /// Owners are mapped through a user namespace.
        const IDMAP = 0x0010_0000;
        /// Symlinks are not followed.
        const NOSYMFOLLOW = 0x0020_0000;
    }
}

/// How mount events travel between a mount and its peers (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are those of mount(8)
pub enum Propagation {
    Unbindable,
    Private,
    Slave,
    Shared,
}

impl Propagation {
    /// The `MS_*` flag.
    pub fn bits(self) -> u64 {
        match self {
            Self::Unbindable => libc::MS_UNBINDABLE,
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
        }
    }
}

/// How much of a mount tree a change covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// The one mount.
    Mount,
    /// The mount and all below it.
    Tree,
}

/// A change of a mount's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AttrChange {
    /// Attributes to set.
    pub set: MountAttr,
    /// Attributes to clear; setting one of the access-time modes clears them all first.
    pub clear: MountAttr,
    /// Propagation to set.
    pub propagation: Option<Propagation>,
}

impl AttrChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct RawAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of the mount at `path`, or of the one that `dir` itself names when `path` is empty
/// (mount_setattr(2)). Does not follow a symlink at the end of `path`. Async-signal-safe.
///
/// # Errors
/// Those of mount_setattr(2): `EPERM` for attributes that a less privileged mount namespace may not clear, `EINVAL` for
/// what is not a mount's root.
pub fn mount_setattr(dir: impl AsFd, path: &CStr, depth: Depth, change: AttrChange) -> Result<(), Errno> {
    let atime = if change.set.intersects(MountAttr::ATIME) {
        MountAttr::ATIME
    } else {
        MountAttr::empty()
    };
    set_raw(
        dir,
        path,
        depth,
        RawAttr {
            set: change.set.bits(),
            clear: (change.clear | atime).bits(),
            propagation: change.propagation.map_or(0, Propagation::bits),
            userns_fd: 0,
        },
    )
}

/// Maps the owners of files on a mount that is attached to nothing through a user namespace (mount_setattr(2), `MOUNT_ATTR_IDMAP`). A
/// mount can be mapped once. Async-signal-safe.
///
/// # Errors
/// Those of mount_setattr(2): `EINVAL` if the filesystem can't be mapped or the mount is attached, `EPERM` without `CAP_SYS_ADMIN` over the
/// filesystem, for the initial user namespace, and for a mount that is mapped already.
pub fn map_mount_ids(mount: impl AsFd, depth: Depth, user_namespace: impl AsFd) -> Result<(), Errno> {
    let attr = RawAttr {
        set: MountAttr::IDMAP.bits(),
        clear: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    set_raw(mount, c"", depth, attr)
}

fn set_raw(dir: impl AsFd, path: &CStr, depth: Depth, attr: RawAttr) -> Result<(), Errno> {
    let mut flags = libc::AT_SYMLINK_NOFOLLOW;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if depth == Depth::Tree {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: path and structure outlive the call, and the size is the structure's.
    unsafe {
        syscall!(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<RawAttr>()
        )
    }?;
    Ok(())
}
