//! Attributes and propagation of mounts that are attached to nothing yet.

use std::os::fd::AsFd;

use longshore_linux::{AttrChange, Depth, MountAttr, Propagation, mount_setattr};
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;

use super::report::{At, Call, Failure};
use crate::plan::op::{Attributes, Locked};

/// Sets propagations, one after the other: slave and then shared is both.
pub(super) fn set_propagation(tree: impl AsFd, propagation: &[(Propagation, Depth)]) -> Result<(), Failure> {
    propagation.iter().try_for_each(|(propagation, depth)| {
        let change = AttrChange {
            propagation: Some(*propagation),
            ..AttrChange::default()
        };
        mount_setattr(&tree, c"", *depth, change).at(Call::Attribute)
    })
}

/// Sets the attributes of the mount itself, as far as they are not locked.
pub(super) fn set_attributes(tree: impl AsFd, attr: &Attributes) -> Result<(), Failure> {
    if attr.change.is_empty() {
        return Ok(());
    }
    let set = |change: AttrChange| mount_setattr(&tree, c"", Depth::Mount, change);
    match attr.locked {
        None => set(attr.change).at(Call::Attribute),
        Some(Locked::ByKernel(less)) => match set(attr.change) {
            Err(Errno::PERM) => set(less).at(Call::Locked),
            answer => answer.at(Call::Attribute),
        },
        Some(Locked::ByUs { cleared }) => {
            let before = Seen::on(&tree)?;
            set(attr.change).at(Call::Attribute)?;
            let after = Seen::on(&tree)?;
            let lost = before.lockable - after.lockable;
            if lost.intersects(cleared) || before.times != after.times {
                return Err(Errno::PERM).at(Call::Locked);
            }
            if lost.is_empty() {
                return Ok(());
            }
            let back = AttrChange {
                set: lost,
                ..AttrChange::default()
            };
            set(back).at(Call::Attribute)
        }
    }
}

/// What a mount has of what a kernel would lock.
struct Seen {
    lockable: MountAttr,
    times: StatVfsMountFlags,
}

impl Seen {
    fn on(tree: impl AsFd) -> Result<Self, Failure> {
        let flags = fstatvfs(tree).at(Call::OpenSource)?.f_flag;
        let mut lockable = MountAttr::empty();
        for (flag, attr) in [
            (StatVfsMountFlags::RDONLY, MountAttr::RDONLY),
            (StatVfsMountFlags::NOSUID, MountAttr::NOSUID),
            (StatVfsMountFlags::NODEV, MountAttr::NODEV),
            (StatVfsMountFlags::NOEXEC, MountAttr::NOEXEC),
        ] {
            if flags.contains(flag) {
                lockable |= attr;
            }
        }
        let times = StatVfsMountFlags::NOATIME | StatVfsMountFlags::NODIRATIME | StatVfsMountFlags::RELATIME;
        Ok(Self {
            lockable,
            times: flags & times,
        })
    }
}
