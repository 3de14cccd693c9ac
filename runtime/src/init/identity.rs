//! Who the program is and what it may: ids, capabilities, working directory.

use longshore_linux::{
    drop_bounding_capability, set_ambient_capabilities, set_capabilities, set_group, set_groups, set_user,
    verify_cwd_inside_root,
};
use rustix::io::Errno;

use super::Child;
use super::report::{At, Call, Failure};
use crate::plan::op::{Op, When};

impl Child<'_> {
    /// Performs an operation of this kind, or says that it is of another.
    pub(super) fn perform_identity(&mut self, op: &Op) -> Option<Result<(), Failure>> {
        Some(match op {
            Op::BecomeRoot { groups } => become_root(*groups),
            Op::Umask(mask) => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(*mask));
                Ok(())
            }
            Op::Groups(gids) => set_groups(gids).at(Call::SetGroups),
            Op::User { uid, gid } => set_group(*gid)
                .at(Call::SetGroup)
                .and_then(|()| set_user(*uid).at(Call::SetUser)),
            Op::KeepCapabilities => rustix::thread::set_keep_capabilities(true).at(Call::Prctl),
            Op::Bounding { drop } => drop
                .iter()
                .try_for_each(|n| drop_bounding_capability(*n))
                .at(Call::Bounding),
            Op::Capabilities { sets, ambient } => set_capabilities(*sets)
                .at(Call::Capabilities)
                .and_then(|()| set_ambient_capabilities(*ambient).at(Call::Ambient)),
            Op::Chdir { path, when } => self.enter(path, *when),
            _ => return None,
        })
    }

    /// Enters the working directory. Root may where the user may not and the other way round, so both try; where it led is then
    /// looked at: a descriptor of the host that leaked into the child would lead out of the root.
    fn enter(&mut self, path: &std::ffi::CStr, when: When) -> Result<(), Failure> {
        if self.in_cwd {
            return Ok(());
        }
        match rustix::process::chdir(path) {
            Ok(()) => {
                self.in_cwd = true;
                verify_cwd_inside_root().at(Call::Outside)
            }
            Err(Errno::ACCESS | Errno::PERM) if when == When::BeforeUser => Ok(()),
            Err(errno) => Err(errno).at(Call::Chdir),
        }
    }
}

fn become_root(groups: bool) -> Result<(), Failure> {
    if groups {
        set_groups(&[]).at(Call::SetGroups)?;
    }
    set_group(0).at(Call::SetGroup)?;
    set_user(0).at(Call::SetUser)
}
