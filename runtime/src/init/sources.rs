//! What mounts are made from: filesystems, and copies of mounts, attached to nothing yet.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use longshore_linux::{AttrChange, Depth, MountAttr, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, open_tree,
};

use super::report::{At, Call, Failure};
use crate::plan::op::{FsParam, Source};

/// Makes a mount that is attached to nothing. Also the host calls this, for sources that the child can't reach.
pub(crate) fn make(source: &Source, attr: MountAttr) -> Result<OwnedFd, Failure> {
    match source {
        Source::Fs {
            fs_type,
            params,
            fallback,
        } => match new_filesystem(fs_type, None, params, attr) {
            Err(Failure { errno: Errno::PERM, .. }) if fallback.is_some() => {
                read_only_copy(fallback.as_deref().unwrap_or_default(), attr)
            }
            answer => answer,
        },
        Source::Legacy {
            fs_type,
            source,
            flags,
            data,
        } => by_path(fs_type, source, *flags, data),
        Source::Bind { path, depth } => bind(path, *depth),
        Source::Inside { .. } | Source::Detached(_) | Source::There { .. } => Err(Errno::INVAL).at(Call::OpenSource),
    }
}

/// A tree of the host that takes the place of what may not be mounted: nothing of it can be written.
fn read_only_copy(path: &CStr, attr: MountAttr) -> Result<OwnedFd, Failure> {
    let tree = bind(path, Depth::Tree)?;
    let change = AttrChange {
        // Access times are locked, and nothing writes here.
        set: (attr - MountAttr::ATIME - MountAttr::NODIRATIME) | MountAttr::RDONLY,
        ..AttrChange::default()
    };
    mount_setattr(&tree, c"", Depth::Tree, change).at(Call::Attribute)?;
    Ok(tree)
}

/// A copy of what a path names, and of the mounts below it.
pub(super) fn bind(path: &CStr, depth: Depth) -> Result<OwnedFd, Failure> {
    open_tree(CWD, path, copying(depth)).at(Call::OpenSource)
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

/// A new instance of a filesystem. `mode` comes before the parameters, so that they can say otherwise.
pub(super) fn new_filesystem(
    fs_type: &CStr,
    mode: Option<&CStr>,
    params: &[FsParam],
    attr: MountAttr,
) -> Result<OwnedFd, Failure> {
    let fs = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC).at(Call::FsOpen)?;
    if let Some(mode) = mode {
        fsconfig_set_string(&fs, c"mode", mode).at(Call::FsOption)?;
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

/// By mount(2), over the root of a namespace that is the child's own. `/` itself stays the directory below; `/..` is what
/// lies on top of it.
fn by_path(fs_type: &CStr, source: &CStr, flags: u32, data: &CStr) -> Result<OwnedFd, Failure> {
    mount(source, c"/", fs_type, MountFlags::from_bits_retain(flags), data).at(Call::Mount)?;
    openat(CWD, c"/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Call::OpenSource)
}
