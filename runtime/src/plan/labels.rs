//! What security modules and the kernel's key store are told of a process.

use longshore_linux::Namespaces;
use oci_spec::runtime::{Linux, Process};

use super::Builder;
use super::op::{Attribute, FsParam, HostInput, Op, Slot};
use super::paths::{cstring, unsupported};
use crate::Result;

/// Who may look for a container's session keyring, and so join it: its user, and where its ids are its own also others of them.
const OTHERS_SEARCH: u32 = 0x8;
const USER_SEARCHES: u32 = 0x0008_0000;

/// A label or profile that is asked for.
fn wanted(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|l| !l.is_empty())
}

impl Builder<'_> {
    /// The host's procfs, opened before the clone: what is written through it lands in this process's own files, whatever the container has
    /// mounted.
    pub(super) fn host_proc(&mut self, field: &str) -> Slot {
        let slot = match self.proc {
            Some(slot) => slot,
            None => self.input(HostInput::Proc, field),
        };
        self.proc = Some(slot);
        slot
    }

    /// Leaves the host's session keyring for one of the container's.
    pub(super) fn keyring(&mut self, process: &Process) -> Result<()> {
        let Some(name) = self.options.keyring.clone() else {
            return Ok(());
        };
        let field = "process";
        let name = cstring(field, name)?;
        let permissions = match self.namespaces.new.contains(Namespaces::USER) {
            true => USER_SEARCHES | OTHERS_SEARCH,
            false => USER_SEARCHES,
        };
        let label = wanted(process.selinux_label()).filter(|_| self.facts.selinux);
        let proc = label.is_some().then(|| self.host_proc(field));
        if let Some((label, slot)) = label.zip(proc) {
            self.attribute("process.selinuxLabel", slot, Attribute::KeyCreate, label)?;
        }
        self.step(field, Op::Keyring { name, permissions });
        if let Some(slot) = label.and(proc) {
            self.attribute("process.selinuxLabel", slot, Attribute::KeyCreate, "")?;
        }
        Ok(())
    }

    /// The labels that the program gets when it is executed.
    pub(super) fn labels(&mut self, field: &str, process: &Process) -> Result<()> {
        if let Some(profile) = wanted(process.apparmor_profile()) {
            let field = format!("{field}.apparmorProfile");
            if !self.facts.apparmor {
                let reason = "AppArmor is not enabled on this machine; leave it out";
                return Err(unsupported(field, reason));
            }
            let slot = self.host_proc(&field);
            self.attribute(&field, slot, Attribute::AppArmorExec, &format!("exec {profile}"))?;
        }
        if let Some(label) = wanted(process.selinux_label()) {
            let field = format!("{field}.selinuxLabel");
            if !self.facts.selinux {
                let reason = "SELinux is disabled on this machine; leave it out";
                return Err(unsupported(field, reason));
            }
            let slot = self.host_proc(&field);
            self.attribute(&field, slot, Attribute::Exec, label)?;
        }
        Ok(())
    }

    /// `linux.mountLabel`: the label of all files in what the container gets mounted anew. It does not confine the container, whose own label is another
    /// field, and where nobody reads labels nothing is lost without it.
    pub(super) fn mount_label(&mut self, linux: Option<&Linux>) -> Result<()> {
        let Some(label) = linux.and_then(|l| wanted(l.mount_label())) else {
            return Ok(());
        };
        let field = "linux.mountLabel";
        if !self.facts.selinux {
            let warning = format!("{field}: '{label}' is not set, as SELinux is disabled on this machine");
            self.warnings.push(warning);
            return Ok(());
        }
        self.mount_label = Some(cstring(field, label)?);
        Ok(())
    }

    /// The label as a parameter of a new filesystem. Those of the kernel's own views have labels of their own; a message queue's root gets one later.
    pub(super) fn context(&self, fs_type: &str, params: &[FsParam]) -> Option<FsParam> {
        let own = matches!(fs_type, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
        let given = params.iter().any(|param| param.key.to_bytes() == b"context");
        let label = self.mount_label.as_ref().filter(|_| !own && !given)?;
        Some(FsParam {
            key: c"context".into(),
            value: Some(label.clone()),
        })
    }

    fn attribute(&mut self, field: &str, proc: Slot, attribute: Attribute, value: &str) -> Result<()> {
        let value = cstring(field, value)?;
        self.step(field, Op::Attribute { proc, attribute, value });
        Ok(())
    }
}
