//! Containers that share their mount namespace: with whoever runs them, or, by a path in `linux.namespaces`, with somebody else.
//!
//! What others see is theirs: nothing is attached, unmounted or changed there. The root is a tree of mounts of its own that is attached to nothing
//! and ends with the last process in it; `chroot(2)` enters it. A `..` never leads out, because nothing is above it.

use std::path::Path;

use longshore_linux::Namespaces;
use oci_spec::runtime::{Hook, Spec};

use super::hooks::prestart;
use super::op::{Assembly, Op, Source};
use super::paths::{clean, invalid, on_host, unsupported};
use super::{Builder, PlanOptions, RootEntry};
use crate::Result;

/// The first kernel that lets mounts be attached to a tree that is attached to nothing itself.
const TREES_APART: (u32, u32) = (6, 15);

/// What a container's root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// Put together by the plan.
    Made(Assembly),
    /// That of the shared namespace, of which nothing is changed.
    AsItIs,
}

impl Builder<'_> {
    /// What the root of the container is; an error for what can't be done in a mount namespace that is shared.
    pub(super) fn what_root(&self, spec: &Spec) -> Result<Root> {
        if self.namespaces.new.contains(Namespaces::MOUNT) {
            return Ok(Root::Made(Assembly::OverOld));
        }
        let joins = self.joins_mount_namespace();
        let asked = asked_for(spec);
        if self.namespaces.has(Namespaces::USER) && (asked.is_some() || !joins) {
            let reason = "a user namespace can't mount in a mount namespace that it shares; give it its own, without a path, \
                          or leave the field out";
            return Err(unsupported(asked.unwrap_or("linux.namespaces"), reason));
        }
        if self.options.root_entry != RootEntry::Pivot {
            return Err(invalid(
                "root.path",
                "the root of a shared mount namespace is not moved",
            ));
        }
        if asked.is_none() && (joins || is_whole(spec, self.options)) {
            return match self.options.rootfs.as_slice() {
                [] => Ok(Root::AsItIs),
                _ => Err(invalid(
                    "rootfs",
                    "the root of the shared mount namespace is used as it is; leave it out",
                )),
            };
        }
        if self.facts.kernel < TREES_APART {
            let (major, minor) = TREES_APART;
            let reason = format!("a root of its own in a mount namespace that is shared needs Linux {major}.{minor}");
            return Err(unsupported("linux.namespaces", reason));
        }
        if propagates(spec) {
            let reason = "the mount namespace is shared, and none of its mounts is changed; leave it out";
            return Err(invalid("linux.rootfsPropagation", reason));
        }
        Ok(Root::Made(Assembly::Apart))
    }

    fn joins_mount_namespace(&self) -> bool {
        self.namespaces.has(Namespaces::MOUNT) && !self.namespaces.new.contains(Namespaces::MOUNT)
    }

    /// Hooks that run before the root is entered find no root in a namespace that is joined.
    pub(super) fn refuse_early_hooks(&self, spec: &Spec) -> Result<()> {
        let Some(hooks) = spec.hooks() else { return Ok(()) };
        let some = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|h| !h.is_empty());
        for (field, list) in [
            ("hooks.prestart", prestart(hooks)),
            ("hooks.createRuntime", hooks.create_runtime()),
            ("hooks.createContainer", hooks.create_container()),
        ] {
            if self.joins_mount_namespace() && some(list) {
                let reason = "hooks before the root is entered, in a joined mount namespace";
                return Err(unsupported(field, reason));
            }
        }
        Ok(())
    }

    /// The root of the shared namespace, `root.path` or not.
    pub(super) fn root_as_it_is(&mut self) {
        self.step("linux.namespaces", Op::OpenRoot);
    }

    /// mount(2) mounts in the namespace.
    pub(super) fn refuse_in_shared(&self, source: &Source, field: &str) -> Result<()> {
        match (self.assembly, source) {
            (Assembly::Apart, Source::Legacy { fs_type, .. }) => {
                let fs_type = fs_type.to_string_lossy();
                let reason = format!(
                    "these options of {fs_type} need mount(2), which would mount it in the namespace that is shared"
                );
                Err(unsupported(field, reason))
            }
            _ => Ok(()),
        }
    }
}

/// Whether CRIU finds the container's mounts in its mount namespace.
pub(crate) fn has_its_mounts_in_its_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref());
    let mut mount = namespaces.unwrap_or_default().iter();
    let mount = mount.find(|n| n.typ() == oci_spec::runtime::LinuxNamespaceType::Mount);
    match mount.map(|n| n.path().as_ref().filter(|p| !p.as_os_str().is_empty())) {
        None => false,
        Some(None) => true,
        Some(Some(_)) => asked_for(spec).is_none(),
    }
}

/// The first field that says what is to be in the root.
fn asked_for(spec: &Spec) -> Option<&'static str> {
    let linux = spec.linux().as_ref();
    let some = |list: Option<&[String]>| list.is_some_and(|l| !l.is_empty());
    let asked = [
        ("mounts", spec.mounts().as_ref().is_some_and(|m| !m.is_empty())),
        (
            "root.readonly",
            spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false),
        ),
        (
            "linux.maskedPaths",
            some(linux.and_then(|l| l.masked_paths().as_deref())),
        ),
        (
            "linux.readonlyPaths",
            some(linux.and_then(|l| l.readonly_paths().as_deref())),
        ),
        (
            "linux.devices",
            linux.and_then(|l| l.devices().as_ref()).is_some_and(|d| !d.is_empty()),
        ),
        ("linux.rootfsPropagation", propagates(spec)),
        (
            "linux.mountLabel",
            linux
                .and_then(|l| l.mount_label().as_ref())
                .is_some_and(|l| !l.is_empty()),
        ),
    ];
    asked.iter().find(|(_, asked)| *asked).map(|(field, _)| *field)
}

fn propagates(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|l| l.rootfs_propagation().as_ref())
        .is_some_and(|p| !p.is_empty())
}

/// Whether the root is all that the namespace has.
fn is_whole(spec: &Spec, options: &PlanOptions) -> bool {
    let root = spec.root().as_ref();
    root.is_some_and(|root| clean(&on_host(&options.bundle, root.path())) == Path::new("/"))
}
