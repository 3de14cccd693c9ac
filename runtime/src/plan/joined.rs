use longshore_linux::Namespaces;
use oci_spec::runtime::{Hook, Spec};

use super::hooks::prestart;
use super::op::Op;
use super::paths::{invalid, unsupported};
use super::{Builder, RootEntry};
use crate::Result;

impl Builder<'_> {
    /// A mount namespace that is joined has a root with all that is mounted in it: nothing is changed there, `root.path` says nothing, and
    /// what would change something is refused.
    pub(super) fn joined_root(&mut self, spec: &Spec) -> Result<()> {
        debug_assert!(
            self.namespaces.has(Namespaces::MOUNT),
            "there is a mount namespace, or the plan has ended"
        );
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
            (
                "linux.rootfsPropagation",
                linux
                    .and_then(|l| l.rootfs_propagation().as_ref())
                    .is_some_and(|p| !p.is_empty()),
            ),
            (
                "linux.mountLabel",
                linux
                    .and_then(|l| l.mount_label().as_ref())
                    .is_some_and(|l| !l.is_empty()),
            ),
            ("rootfs", !self.options.rootfs.is_empty()),
        ];
        if let Some((field, _)) = asked.iter().find(|(_, asked)| *asked) {
            return Err(invalid(
                *field,
                "the mount namespace that linux.namespaces joins is used as it is; leave the field out",
            ));
        }
        if self.options.root_entry != RootEntry::Pivot {
            return Err(invalid(
                "root.path",
                "the root of a joined mount namespace is not moved",
            ));
        }
        if let Some(hooks) = spec.hooks() {
            let some = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|h| !h.is_empty());
            for (field, list) in [
                ("hooks.prestart", prestart(hooks)),
                ("hooks.createRuntime", hooks.create_runtime()),
                ("hooks.createContainer", hooks.create_container()),
            ] {
                if some(list) {
                    return Err(unsupported(
                        field,
                        "hooks before the root is entered, in a joined mount namespace",
                    ));
                }
            }
        }
        self.step("linux.namespaces", Op::OpenRoot);
        Ok(())
    }
}
