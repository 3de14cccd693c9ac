use std::path::PathBuf;

use longshore_bundle::{IdMappings, Rootless, SpecBuilder, UnpackOptions};
use longshore_snapshot::Ownership;

/// What the program that runs the engine may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Privilege {
    /// It is root: files keep their owners, containers need no user namespace.
    #[default]
    Root,
    /// It is an ordinary user: unpacked files are its own, containers run in a user namespace.
    User(Rootless),
}

impl Privilege {
    /// That of the calling process. For an ordinary user, the container's root is that user, and there is nobody else.
    pub fn of_process() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        match uid.is_root() {
            true => Self::Root,
            false => Self::User(Rootless::new(IdMappings::single(uid.as_raw(), gid.as_raw()))),
        }
    }

    pub(crate) fn unpack_options(&self) -> UnpackOptions {
        match self {
            Self::Root => UnpackOptions::default(),
            Self::User(_) => UnpackOptions::default().ownership(Ownership::Caller),
        }
    }

    /// The spec that suits it. A user without privileges has no cgroups, unless its [`Rootless`] says so.
    pub(crate) fn adapt(&self, spec: SpecBuilder, cgroup: impl FnOnce() -> PathBuf) -> SpecBuilder {
        match self {
            Self::Root => spec.cgroups_path(cgroup()),
            Self::User(rootless) => spec.rootless(rootless.clone()),
        }
    }
}
