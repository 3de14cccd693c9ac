//! Device nodes, and the cgroup rules that let them be used.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, User,
};

use crate::path::clean;
use crate::{Error, Result};

/// Directories of the host's `/dev` that are mounts of their own, or full of links, and of no use in a container.
const SKIPPED: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"];

/// A device of the host that a container is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    node: LinuxDevice,
    access: String,
    owner: Owner,
}

/// Whose a node is that says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The executor's choice.
    Unsaid,
    /// That of the container's process.
    Process,
}

impl Device {
    /// A device node of the host, at the same path in the container, to be read, written and made (mknod(2)).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is no device; what looking at it fails with.
    pub fn of_host(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(Error::io("looking at", path))?;
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => {
                return Err(Error::option(
                    "device",
                    path.display().to_string(),
                    "it is not a device node",
                ));
            }
        };
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let node = LinuxDeviceBuilder::default()
            .path(path)
            .typ(kind)
            .major(i64::from(major))
            .minor(i64::from(minor))
            .file_mode(metadata.mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid())
            .build()
            .expect("every field has a default");
        Ok(Self::new(node))
    }

    /// A device as the runtime spec describes it.
    pub fn new(node: LinuxDevice) -> Self {
        Self {
            node,
            access: "rwm".into(),
            owner: Owner::Unsaid,
        }
    }

    /// The same, the process's where the node says no owner.
    pub(crate) fn owned_by_process(mut self) -> Self {
        self.owner = Owner::Process;
        self
    }

    /// The same at another path of the container.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.node.set_path(path.into());
        self
    }

    /// The same with other rights: any of `r`, `w` and `m`.
    #[must_use]
    pub fn access(mut self, access: impl Into<String>) -> Self {
        self.access = access.into();
        self
    }

    /// The node, and the rule that lets it be used; a pipe needs none.
    pub(super) fn checked(&self, process: &User) -> Result<(LinuxDevice, Option<LinuxDeviceCgroup>)> {
        let mut node = self.node.clone();
        if self.owner == Owner::Process {
            let of_process = |id: u32| (id != 0).then_some(id);
            node.set_uid(node.uid().or(of_process(process.uid())));
            node.set_gid(node.gid().or(of_process(process.gid())));
        }
        node.set_path(clean("device path", node.path())?);
        let known = !self.access.is_empty() && self.access.chars().all(|right| "rwm".contains(right));
        if !known || self.access.len() > 3 {
            return Err(Error::option("device access", &self.access, "it is made of r, w and m"));
        }
        let rule = rule(node.typ(), Some(node.major()), Some(node.minor()), &self.access);
        let needed = node.typ() != LinuxDeviceType::P;
        Ok((node, needed.then_some(rule)))
    }
}

/// Every device node of the host, for a [privileged](crate::SpecBuilder::privileged) container. What cannot be read
/// is left out, as in Docker.
///
/// # Errors
/// What reading `/dev` fails with.
pub fn host_devices() -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    let entries = std::fs::read_dir("/dev").map_err(Error::io("reading", "/dev"))?;
    let mut pending: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    while let Some(path) = pending.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        let skipped = path.file_name().is_none_or(|name| SKIPPED.iter().any(|s| name == *s));
        if kind.is_dir() && !skipped {
            let entries = std::fs::read_dir(&path).into_iter().flatten();
            pending.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        } else if (kind.is_char_device() || kind.is_block_device()) && path != Path::new("/dev/console") {
            devices.extend(Device::of_host(&path));
        }
    }
    devices.sort_by(|a, b| a.node.path().cmp(b.node.path()));
    Ok(devices)
}

/// Nothing is allowed, but making nodes and using those that every container has: null, zero, full, random, urandom,
/// tty, console, ptmx and pseudo terminals.
pub(super) fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let (character, block) = (LinuxDeviceType::C, LinuxDeviceType::B);
    let mut rules = vec![
        deny_all(),
        rule(character, None, None, "m"),
        rule(block, None, None, "m"),
    ];
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    rules.extend(nodes.map(|(major, minor)| rule(character, Some(major), Some(minor), "rwm")));
    rules.push(rule(character, Some(136), None, "rwm"));
    rules
}

/// Everything is allowed.
pub(super) fn all_rules() -> Vec<LinuxDeviceCgroup> {
    let mut all = deny_all();
    all.set_allow(true);
    vec![all]
}

pub(super) fn deny_all() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_access(Some("rwm".to_owned()));
    rule
}

fn rule(kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
    let mut rule = rule.build().expect("every field has a default");
    rule.set_major(major);
    rule.set_minor(minor);
    rule
}
