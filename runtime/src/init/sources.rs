//! What mounts are made from: filesystems, and copies of mounts, attached to nothing yet.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use longshore_linux::{AttrChange, Depth, MountAttr, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlinkat_raw, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, open_tree,
};
use rustix::process::fchdir;

use super::report::{At, Call, Failure};
use crate::plan::op::{Fallback, FsParam, ShortName, Source};

/// Makes a mount that is attached to nothing. Also the host calls this, for sources that the child can't reach.
pub(crate) fn make(source: &Source, attr: MountAttr) -> Result<OwnedFd, Failure> {
    match source {
        Source::Fs {
            fs_type,
            params,
            fallback,
        } => match (new_filesystem(fs_type, &[], params, attr), fallback) {
            (Err(Failure { errno: Errno::PERM, .. }), Some(Fallback::ReadOnly(path))) => {
                instead(bind(path, Depth::Tree)?, attr | MountAttr::RDONLY)
            }
            (Err(Failure { errno: Errno::PERM, .. }), Some(Fallback::Tree(path))) => {
                instead(bind(path, Depth::Tree)?, attr)
            }
            (answer, _) => answer,
        },
        Source::Legacy {
            fs_type,
            source,
            flags,
            data,
            names,
        } => {
            let before = go_to(names)?;
            let made = by_path(fs_type, source, *flags, data);
            before.map_or(Ok(()), fchdir).at(Call::Mount)?;
            made
        }
        Source::Bind { path, depth } => bind(path, *depth),
        Source::Inside { .. }
        | Source::Detached(_)
        | Source::Opened { .. }
        | Source::Named(_)
        | Source::There { .. } => Err(Errno::INVAL).at(Call::OpenSource),
    }
}

/// A tree that takes the place of what may not be mounted.
pub(super) fn instead(tree: OwnedFd, attr: MountAttr) -> Result<OwnedFd, Failure> {
    let change = AttrChange {
        // Access times are locked, and matter to nobody here.
        set: attr - MountAttr::ATIME - MountAttr::NODIRATIME,
        ..AttrChange::default()
    };
    mount_setattr(&tree, c"", Depth::Tree, change).at(Call::Attribute)?;
    Ok(tree)
}

/// A copy of the mount of what a descriptor from another mount namespace is of: there its path is the same.
pub(super) fn named(directory: impl AsFd) -> Result<OwnedFd, Failure> {
    let mut link = [0u8; 32];
    let mut number = std::io::Cursor::new(&mut link[..]);
    let written = std::io::Write::write_fmt(
        &mut number,
        format_args!("/proc/self/fd/{}\0", directory.as_fd().as_raw_fd()),
    );
    written.map_err(|_| Errno::NAMETOOLONG).at(Call::OpenSource)?;
    let link = CStr::from_bytes_until_nul(&link)
        .map_err(|_| Errno::INVAL)
        .at(Call::OpenSource)?;
    let mut path = [0u8; 4096];
    let length = readlinkat_raw(CWD, link, &mut path[..]).at(Call::OpenSource)?;
    if length >= path.len() {
        return Err(Errno::NAMETOOLONG).at(Call::OpenSource);
    }
    let path = CStr::from_bytes_until_nul(&path)
        .map_err(|_| Errno::INVAL)
        .at(Call::OpenSource)?;
    let tree = bind(path, Depth::Mount)?;
    let (asked, found) = (
        fstat(directory).at(Call::OpenSource)?,
        fstat(&tree).at(Call::OpenSource)?,
    );
    if (asked.st_dev, asked.st_ino) != (found.st_dev, found.st_ino) {
        return Err(Errno::STALE).at(Call::OpenSource);
    }
    Ok(tree)
}

/// A copy of what a path names, and of the mounts below it.
pub(super) fn bind(path: &CStr, depth: Depth) -> Result<OwnedFd, Failure> {
    open_tree(CWD, path, copying(depth)).at(Call::OpenSource)
}

/// What a path leads to, for a copy later on; of the root, with what is mounted in it, the copy.
pub(super) fn open(path: &CStr, depth: Depth) -> Result<OwnedFd, Failure> {
    // As it does for a copy, and openat(2) does not, this has automount(8) mount what belongs there.
    let opened = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC).at(Call::OpenSource)?;
    match is_of_all(&opened, depth)? {
        true => copy(opened, depth),
        false => Ok(opened),
    }
}

/// The copy of what was opened so.
pub(super) fn copy_opened(opened: OwnedFd, depth: Depth) -> Result<OwnedFd, Failure> {
    // Before Linux 6.15 there is no copy of a copy.
    match is_of_all(&opened, depth)? {
        true => Ok(opened),
        false => copy(opened, depth),
    }
}

/// Whether it is a tree from the host's root on, which looking up `/` still finds when another root lies over it.
fn is_of_all(opened: &OwnedFd, depth: Depth) -> Result<bool, Failure> {
    if depth == Depth::Mount {
        return Ok(false);
    }
    let (root, found) = (
        rustix::fs::stat(c"/").at(Call::OpenSource)?,
        fstat(opened).at(Call::OpenSource)?,
    );
    Ok((root.st_dev, root.st_ino) == (found.st_dev, found.st_ino))
}

/// A copy of what a descriptor names, and of the mounts below it.
pub(super) fn copy(fd: impl AsFd, depth: Depth) -> Result<OwnedFd, Failure> {
    open_tree(fd, c"", copying(depth) | OpenTreeFlags::AT_EMPTY_PATH).at(Call::OpenSource)
}

fn copying(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match depth {
        Depth::Mount => flags,
        Depth::Tree => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// A new instance of a filesystem. `first` comes before the parameters, so that they can say otherwise.
pub(super) fn new_filesystem(
    fs_type: &CStr,
    first: &[(&CStr, &CStr)],
    params: &[FsParam],
    attr: MountAttr,
) -> Result<OwnedFd, Failure> {
    let fs = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC).at(Call::FsOpen)?;
    for (key, value) in first {
        fsconfig_set_string(&fs, *key, *value).at(Call::FsOption)?;
    }
    set_params(&fs, params)?;
    fsconfig_create(&fs).at(Call::FsCreate)?;
    let attr = MountAttrFlags::from_bits_retain(attr.bits() as u32);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attr).at(Call::FsMount)
}

pub(super) fn set_params(fs: impl AsFd, params: &[FsParam]) -> Result<(), Failure> {
    params.iter().try_for_each(|FsParam { key, value }| match value {
        Some(value) => fsconfig_set_string(&fs, key.as_c_str(), value.as_c_str()).at(Call::FsOption),
        None => fsconfig_set_flag(&fs, key.as_c_str()).at(Call::FsOption),
    })
}

/// Goes to a directory, in memory and in no mount table, in which the names lead to their paths; gives the one that was left.
fn go_to(names: &[ShortName]) -> Result<Option<OwnedFd>, Failure> {
    if names.is_empty() {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let before = openat(CWD, c".", flags, Mode::empty()).at(Call::OpenSource)?;
    let place = new_filesystem(c"tmpfs", &[], &[], MountAttr::empty())?;
    for short in names {
        symlinkat(short.path.as_c_str(), &place, short.name.as_c_str()).at(Call::OpenSource)?;
    }
    fchdir(&place).at(Call::OpenSource)?;
    Ok(Some(before))
}

/// By mount(2), over the root of a namespace that is the child's own. `/` itself stays the directory below; `/..` is what
/// lies on top of it.
fn by_path(fs_type: &CStr, source: &CStr, flags: u32, data: &CStr) -> Result<OwnedFd, Failure> {
    mount(source, c"/", fs_type, MountFlags::from_bits_retain(flags), data).at(Call::Mount)?;
    openat(CWD, c"/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Call::OpenSource)
}
