use std::path::Path;

use longshore_linux::{AttrChange, Depth, Namespaces, Propagation};
use oci_spec::runtime::{Mount, Spec};

use super::namespaces::{check_ranges, ranges};
use super::op::{Assembly, Attributes, IdMaps, Locked, MountIds, MountOp, Op, Slot, Source, Step, Target};
use super::options::{MountOptions, root_propagation, sort_options};
use super::paths::{cpath, in_root, invalid, on_host, unsupported};
use super::{Builder, Privilege};
use crate::Result;

impl Builder<'_> {
    /// The root's own mount, and propagation before it.
    pub(super) fn root(&mut self, spec: &Spec) -> Result<()> {
        let linux = spec.linux().as_ref();
        let wanted = linux.and_then(|l| l.rootfs_propagation().as_deref());
        let field = "linux.rootfsPropagation";
        self.root_propagation = match wanted.filter(|w| !w.is_empty()) {
            None => None,
            Some(word) => Some(
                root_propagation(word).ok_or_else(|| invalid(field, format!("'{word}' is not a propagation type")))?,
            ),
        };
        let (propagation, depth) = match self.root_propagation {
            None => (Propagation::Slave, Depth::Tree),
            Some(asked @ (Propagation::Private | Propagation::Slave, _)) => asked,
            // What lies below the new root must not hand it on to the host; the rest stays as it is.
            Some(_) => (Propagation::Private, Depth::Mount),
        };
        if self.assembly == Assembly::OverOld {
            self.step(field, Op::Propagate { propagation, depth });
        }

        let root = spec.root().as_ref().ok_or_else(|| invalid("root", "it is missing"))?;
        let path = on_host(&self.options.bundle, root.path());
        if self.options.rootfs.is_empty() {
            let source = Source::Bind {
                path: cpath("root.path", &path)?,
                depth: Depth::Tree,
            };
            self.push_root("root.path", source, AttrChange::default())?;
            self.root_path = Some(path);
            return Ok(());
        }
        let mounts = self.options.rootfs.clone();
        for (i, mount) in mounts.iter().enumerate() {
            let field = format!("rootfs[{i}]");
            let mut options = sort_options(&field, mount.options.iter().map(String::as_str))?;
            let source = self.source(&field, &mount.fs_type, Some(&mount.source), &mut options)?;
            match (&mount.target, i) {
                (None, 0) => self.push_root(&field, source, options.as_said())?,
                (None, _) => return Err(unsupported(field, "a second mount over the whole root")),
                (Some(_), 0) => {
                    return Err(invalid(
                        field,
                        "the first mount must be the root itself, without a target",
                    ));
                }
                (Some(target), _) => self.push_mount(&field, source, &options, target, Target::Directory, None)?,
            }
        }
        self.root_path = Some(path);
        Ok(())
    }

    /// What the host mounts on the root does not come in, unless it is asked for; what it mounts below other mounts of the tree does.
    fn push_root(&mut self, field: &str, source: Source, attr: AttrChange) -> Result<()> {
        self.refuse_in_shared(&source, field)?;
        let source = self.by_whom(source, field);
        let slave = (Propagation::Slave, Depth::Tree);
        let propagation = match self.root_propagation {
            Some((Propagation::Slave, _)) => vec![slave],
            Some((Propagation::Private, Depth::Tree)) => vec![(Propagation::Private, Depth::Tree)],
            None if !self.host_makes() && self.assembly == Assembly::OverOld => {
                vec![(Propagation::Private, Depth::Mount)]
            }
            _ => vec![slave, (Propagation::Private, Depth::Mount)],
        };
        let op = Op::Root {
            assembly: self.assembly,
            source,
            attr,
            propagation,
        };
        self.root_step = self.steps.len();
        self.step(field, op);
        Ok(())
    }

    /// The host's files are opened while `/` is the host's.
    fn opened_early(&mut self, source: Source, field: &str) -> Source {
        let Source::Bind { path, depth } = source else {
            return source;
        };
        let slot = self.slot();
        let step = Step {
            field: field.to_owned(),
            op: Op::Open { slot, path, depth },
        };
        self.steps.insert(self.root_step, step);
        self.root_step += 1;
        Source::Opened { slot, depth }
    }

    /// `mounts` of the spec, in order.
    pub(super) fn mounts(&mut self, spec: &Spec) -> Result<()> {
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            let field = format!("mounts[{i}]");
            if mount.destination().as_os_str().is_empty() {
                return Err(invalid(format!("{field}.destination"), "it is empty"));
            }
            self.spec_mount(&field, mount)?;
        }
        Ok(())
    }

    fn spec_mount(&mut self, field: &str, mount: &Mount) -> Result<()> {
        let options = mount.options().iter().flatten().map(String::as_str);
        let mut options = sort_options(&format!("{field}.options"), options)?;
        let fs_type = mount.typ().as_deref().unwrap_or_default();
        let bind = is_bind(mount, &options);
        options.id_map = self.mount_ids(field, mount, &options)?;
        if fs_type == "cgroup" {
            return self.cgroup_mount(field, mount, &options);
        }
        if options.copy_up && (fs_type != "tmpfs" || bind || options.remount) {
            return Err(invalid(
                format!("{field}.options"),
                "tmpcopyup is an option of a new tmpfs",
            ));
        }
        let has_mode = options.params.iter().any(|p| p.key.as_c_str() == c"mode");
        let source = self.source(field, fs_type, mount.source().as_deref(), &mut options)?;
        // Some tools name places in the root by their path on the host.
        let inside = self.inside(mount.destination());
        let destination = inside.as_deref().unwrap_or(mount.destination());
        let target = match fs_type {
            _ if bind => Target::LikeSource,
            "proc" | "sysfs" => Target::DirectoryItself,
            "tmpfs" if !has_mode => Target::Tmpfs,
            _ => Target::Directory,
        };
        // Device nodes are made in /dev afterwards, and mount points in any tmpfs: they are closed when all is there.
        let filled = fs_type == "tmpfs" || in_root(field, destination)?.whole() == c"dev";
        if !bind && !options.remount && filled && options.is_read_only() {
            let slot = self.slot();
            self.late_read_only.push((field.to_owned(), slot));
            let options = options.without_read_only();
            return self.push_mount(field, source, &options, destination, target, Some(slot));
        }
        self.push_mount(field, source, &options, destination, target, None)
    }

    /// Whose owners a mount shows, if not those on the disk.
    fn mount_ids(&self, field: &str, mount: &Mount, options: &MountOptions) -> Result<Option<MountIds>> {
        let users = mount.uid_mappings().as_deref().unwrap_or_default();
        let groups = mount.gid_mappings().as_deref().unwrap_or_default();
        let (uids, gids) = (format!("{field}.uidMappings"), format!("{field}.gidMappings"));
        if options.idmap.is_none() && users.is_empty() && groups.is_empty() {
            return Ok(None);
        }
        let asked = if options.idmap.is_some() {
            format!("{field}.options")
        } else {
            uids.clone()
        };
        if options.remount || !is_bind(mount, options) {
            return Err(invalid(asked, "only the ids of a bind mount can be mapped"));
        }
        if self.facts.privilege == Privilege::None {
            return Err(unsupported(
                asked,
                "mapping the ids of a mount needs CAP_SYS_ADMIN; run as root",
            ));
        }
        let maps = match (users, groups) {
            ([], []) if self.namespaces.has(Namespaces::USER) => None,
            ([], []) => {
                let reason = "there is no user namespace whose mapping it could have; give uidMappings and gidMappings";
                return Err(invalid(asked, reason));
            }
            ([], _) => return Err(invalid(uids, "there are gidMappings, and none of users")),
            (_, []) => return Err(invalid(gids, "there are uidMappings, and none of groups")),
            _ => {
                let maps = IdMaps {
                    users: ranges(users),
                    groups: ranges(groups),
                };
                check_ranges(&uids, &maps.users)?;
                check_ranges(&gids, &maps.groups)?;
                Some(maps)
            }
        };
        Ok(Some(MountIds {
            depth: options.idmap.unwrap_or(Depth::Mount),
            maps,
        }))
    }

    pub(super) fn push_mount(
        &mut self,
        field: &str,
        source: Source,
        options: &MountOptions,
        destination: &Path,
        target: Target,
        keep: Option<Slot>,
    ) -> Result<()> {
        let at = in_root(&format!("{field}.destination"), destination)?;
        let target = check_destination(field, &source, destination, &at.names, target)?;
        self.refuse_in_shared(&source, field)?;
        let attr = self.attributes(options, &source);
        let origin = match source {
            Source::Bind { .. } if self.host_makes() || self.assembly == Assembly::Apart => Origin::Host,
            Source::Bind { .. } | Source::Inside { .. } => Origin::Child,
            _ => Origin::New,
        };
        let label = match &source {
            Source::Fs { fs_type, .. } if fs_type.as_c_str() == c"mqueue" => self.mount_label.clone(),
            _ => None,
        };
        let source = self.by_whom(source, field);
        let source = self.opened_early(source, field);
        let mount = MountOp {
            attr,
            propagation: self.propagation(options, origin),
            source,
            tree_attr: options.tree_attr,
            at,
            target,
            copy_up: options.copy_up,
            id_map: options.id_map.clone(),
            keep,
            label,
        };
        self.step(field, Op::Mount(Box::new(mount)));
        Ok(())
    }

    fn attributes(&self, options: &MountOptions, source: &Source) -> Attributes {
        match source {
            Source::Bind { .. } | Source::Inside { .. } | Source::There { .. } => {
                let Some(change) = options.exactly() else {
                    return Attributes::default();
                };
                let ours = matches!(source, Source::Bind { .. }) && self.host_makes();
                let locked = if ours {
                    Locked::ByUs {
                        cleared: options.cleared(),
                    }
                } else {
                    Locked::ByKernel(options.as_far_as_unlocked())
                };
                Attributes {
                    change,
                    locked: Some(locked),
                }
            }
            _ => Attributes {
                change: options.of_new(),
                locked: None,
            },
        }
    }

    /// Whether the host makes what a container with a user namespace may not be able to reach or to mount.
    pub(super) fn host_makes(&self) -> bool {
        self.namespaces.has(Namespaces::USER) && self.facts.privilege == Privilege::Full
    }

    /// How events travel between a mount and where it was copied from.
    pub(super) fn propagation(&self, options: &MountOptions, origin: Origin) -> Vec<(Propagation, Depth)> {
        let asked = options.propagation.iter().copied();
        let first = match (origin, self.root_propagation) {
            (Origin::New, _) => None,
            // The host's own mount is its peer. A user namespace never has such a one (mount_namespaces(7)).
            (Origin::Host, _) => Some(Propagation::Slave),
            // All that the child copies is cut off already, or is not to be.
            (_, None | Some((Propagation::Shared, _) | (Propagation::Private | Propagation::Slave, Depth::Tree))) => {
                None
            }
            _ if !options.propagation.is_empty() => None,
            _ => Some(Propagation::Slave),
        };
        first.map(|p| (p, Depth::Tree)).into_iter().chain(asked).collect()
    }
}

/// Whether it is an existing tree, mounted again.
fn is_bind(mount: &Mount, options: &MountOptions) -> bool {
    options.bind.is_some() || mount.typ().as_deref() == Some("bind")
}

/// Where a mount was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nowhere.
    New,
    /// In the child's mount namespace.
    Child,
    /// In the host's, or in one that is shared.
    Host,
}

/// What may be bound over in /proc: files that tools such as lxcfs replace.
const PROC_FILES: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// A mount over /proc could lie to the runtime about what it writes there (CVE-2019-16884).
fn check_destination(
    field: &str,
    source: &Source,
    destination: &Path,
    names: &[std::ffi::CString],
    target: Target,
) -> Result<Target> {
    let refuse = |reason: String| Err(invalid(format!("{field}.destination"), reason));
    if names.is_empty() {
        return refuse("it is the root itself".to_owned());
    }
    if names[0].as_c_str() != c"proc" {
        return Ok(target);
    }
    let whole = names.iter().map(|n| n.to_string_lossy()).collect::<Vec<_>>().join("/");
    let shown = destination.display();
    match source {
        _ if PROC_FILES.contains(&whole.as_str()) => Ok(target),
        _ if names.len() > 1 => refuse(format!("'{shown}' is inside /proc, which must not be covered")),
        Source::Fs { fs_type, .. } if fs_type.as_c_str() == c"proc" => Ok(target),
        Source::Bind { .. } | Source::Inside { .. } => Ok(Target::Proc),
        Source::There { .. } => Ok(target),
        _ => refuse(format!("'{shown}' may only be a procfs")),
    }
}
