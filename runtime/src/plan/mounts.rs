use std::path::{Path, PathBuf};

use longshore_linux::{AttrChange, Depth, MountAttr, Namespaces, Propagation};
use oci_spec::runtime::{Mount, Spec};

use super::op::{FsParam, HostInput, MountOp, Op, Source, Target};
use super::options::{MountOptions, sort_options};
use super::paths::{clean, cpath, cstring, in_root, invalid, on_host, unsupported};
use super::{Builder, Privilege};
use crate::Result;

/// The longest value that fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;
/// mount(2) takes one page of options.
const LONGEST_DATA: usize = 4095;
/// Since this kernel overlay layers can be given one by one.
const SEPARATE_LAYERS: (u32, u32) = (6, 8);

impl Builder<'_> {
    /// The root's own mount, and propagation before it.
    pub(super) fn root(&mut self, spec: &Spec) -> Result<()> {
        let wanted = spec
            .linux()
            .as_ref()
            .and_then(|l| l.rootfs_propagation().as_deref())
            .unwrap_or_default();
        self.root_propagation = match wanted {
            "" => None,
            "private" | "rprivate" => Some(Propagation::Private),
            "slave" | "rslave" => Some(Propagation::Slave),
            "shared" | "rshared" => Some(Propagation::Shared),
            "unbindable" | "runbindable" => Some(Propagation::Unbindable),
            other => {
                return Err(invalid(
                    "linux.rootfsPropagation",
                    format!("'{other}' is not a propagation type"),
                ));
            }
        };
        let inherited = match self.root_propagation {
            Some(Propagation::Private | Propagation::Unbindable) => Propagation::Private,
            _ => Propagation::Slave,
        };
        self.step("linux.rootfsPropagation", Op::Propagate(inherited));

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
                (None, 0) => self.push_root(&field, source, options.attr)?,
                (None, _) => return Err(unsupported(field, "a second mount over the whole root")),
                (Some(_), 0) => {
                    return Err(invalid(
                        field,
                        "the first mount must be the root itself, without a target",
                    ));
                }
                (Some(target), _) => self.push_mount(&field, source, &options, target, Target::Directory)?,
            }
        }
        self.root_path = Some(path);
        Ok(())
    }

    fn push_root(&mut self, field: &str, source: Source, attr: AttrChange) -> Result<()> {
        let source = self.by_whom(source, field);
        let tree_attr = AttrChange {
            propagation: Some(Propagation::Slave),
            ..AttrChange::default()
        };
        self.step(
            field,
            Op::Root {
                source,
                attr,
                tree_attr,
            },
        );
        Ok(())
    }

    /// A container with a user namespace may not be able to reach a source, or to mount a filesystem: then the host makes
    /// the mount, attached to nothing, and the child attaches it.
    fn by_whom(&mut self, source: Source, field: &str) -> Source {
        let host_makes = self.namespaces.has(Namespaces::USER) && self.facts.privilege == Privilege::Full;
        let bound = matches!(source, Source::Bind { .. });
        let on_disk = matches!(&source, Source::Fs { fs_type, .. } if !of_the_namespaces(fs_type.to_bytes()));
        if host_makes && (bound || on_disk) {
            Source::Detached(self.input(HostInput::Mount(source), field))
        } else {
            source
        }
    }

    /// `mounts` of the spec, in order.
    pub(super) fn mounts(&mut self, spec: &Spec) -> Result<()> {
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            let field = format!("mounts[{i}]");
            if !mount.destination().is_absolute() && mount.destination().as_os_str().is_empty() {
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
        if fs_type == "cgroup" {
            return self.cgroup_mount(field, mount, &options);
        }
        let bind = options.bind.is_some() || fs_type == "bind";
        let has_mode = options.params.iter().any(|p| p.key.as_c_str() == c"mode");
        let source = self.source(field, fs_type, mount.source().as_deref(), &mut options)?;
        // Device nodes are made in /dev afterwards; it is closed when they are there.
        if !bind && in_root(field, mount.destination())?.whole() == c"dev" {
            if options.attr.set.contains(MountAttr::RDONLY) {
                options.attr.set -= MountAttr::RDONLY;
                self.read_only_dev = Some(field.to_owned());
            }
            self.fresh_dev = true;
        }
        let target = match fs_type {
            _ if bind => Target::LikeSource,
            "proc" | "sysfs" => Target::DirectoryItself,
            "tmpfs" if !has_mode => Target::Tmpfs,
            _ => Target::Directory,
        };
        // Some tools name places in the root by their path on the host.
        let inside = self.inside(mount.destination());
        self.push_mount(
            field,
            source,
            &options,
            inside.as_deref().unwrap_or(mount.destination()),
            target,
        )
    }

    fn push_mount(
        &mut self,
        field: &str,
        source: Source,
        options: &MountOptions,
        destination: &Path,
        target: Target,
    ) -> Result<()> {
        let at = in_root(&format!("{field}.destination"), destination)?;
        let target = check_destination(field, &source, destination, &at.names, target)?;
        let source = self.by_whom(source, field);
        let mut tree_attr = options.tree_attr;
        if options.attr.propagation.is_none() && tree_attr.propagation.is_none() {
            // Never a peer of the host's mount: what the container mounts below stays there.
            tree_attr.propagation = Some(match self.root_propagation {
                Some(Propagation::Private | Propagation::Unbindable) => Propagation::Private,
                _ => Propagation::Slave,
            });
        }
        let mount = MountOp {
            source,
            attr: options.attr,
            tree_attr,
            at,
            target,
        };
        self.step(field, Op::Mount(Box::new(mount)));
        Ok(())
    }

    /// The path inside the root, of one that is below the root's own path on the host.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let root = clean(self.root_path.as_ref()?);
        let inside = clean(path).strip_prefix(&root).map(Path::to_owned);
        inside.ok().filter(|_| path.is_absolute() && root != Path::new("/"))
    }

    /// What a mount is made from.
    fn source(&self, field: &str, fs_type: &str, source: Option<&Path>, options: &mut MountOptions) -> Result<Source> {
        let bind = match fs_type {
            "bind" => Some(options.bind.unwrap_or(Depth::Tree)),
            _ => options.bind,
        };
        if let Some(depth) = bind {
            if let Some(param) = options.params.first() {
                let reason = format!("'{}' is not an option of a bind mount", param.key.to_string_lossy());
                return Err(invalid(format!("{field}.options"), reason));
            }
            let path = source.ok_or_else(|| invalid(format!("{field}.source"), "a bind mount needs a source"))?;
            let path = on_host(&self.options.bundle, path);
            if let Some(inside) = self.inside(&path) {
                let at = in_root(&format!("{field}.source"), &inside)?;
                return Ok(Source::Inside { at, depth });
            }
            return Ok(Source::Bind {
                path: cpath(field, &path)?,
                depth,
            });
        }
        if fs_type.is_empty() {
            return Err(invalid(
                format!("{field}.type"),
                "it is missing, and the options do not say bind",
            ));
        }
        let mut params = std::mem::take(&mut options.params);
        if fs_type == "overlay" {
            return overlay(field, params, self.facts.kernel);
        }
        if let Some(source) = source.filter(|s| !s.as_os_str().is_empty()) {
            params.insert(
                0,
                FsParam {
                    key: c"source".into(),
                    value: Some(cpath(field, source)?),
                },
            );
        }
        self.check_owners(field, &params)?;
        if params
            .iter()
            .any(|p| p.value.as_ref().is_some_and(|v| v.count_bytes() > LONGEST_VALUE))
        {
            if fs_type == "tmpfs" {
                return Err(invalid(
                    format!("{field}.options"),
                    "an option of a tmpfs is longer than 255 bytes",
                ));
            }
            return legacy(field, fs_type, &params);
        }
        let in_user_namespace = self.namespaces.has(Namespaces::USER);
        let fallback = (fs_type == "sysfs" && in_user_namespace).then(|| c"/sys".into());
        Ok(Source::Fs {
            fs_type: cstring(field, fs_type)?,
            params,
            fallback,
        })
    }
}

impl Builder<'_> {
    /// The kernel answers an owner that is not mapped with "invalid argument"; this says which.
    fn check_owners(&self, field: &str, params: &[FsParam]) -> Result<()> {
        let Some(maps) = &self.id_maps else {
            return Ok(());
        };
        for param in params {
            let map = match param.key.to_bytes() {
                b"uid" => &maps.users,
                b"gid" => &maps.groups,
                _ => continue,
            };
            let id = param
                .value
                .as_ref()
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.parse().ok());
            if id.is_some_and(|id| !map.iter().any(|m| m.covers(id))) {
                let what = format!("{}={}", param.key.to_string_lossy(), id.unwrap_or_default());
                let reason = format!("{what}: the user namespace does not map it; leave the option out");
                return Err(invalid(format!("{field}.options"), reason));
            }
        }
        Ok(())
    }
}

/// Filesystems whose instance belongs to the namespaces of who mounts it.
fn of_the_namespaces(fs_type: &[u8]) -> bool {
    matches!(
        fs_type,
        b"proc" | b"sysfs" | b"mqueue" | b"devpts" | b"tmpfs" | b"cgroup" | b"cgroup2"
    )
}

/// An overlay, with its lower layers one by one where the kernel can, so that neither their number nor the length of their
/// paths together is bounded by a page.
fn overlay(field: &str, params: Vec<FsParam>, kernel: (u32, u32)) -> Result<Source> {
    let source = FsParam {
        key: c"source".into(),
        value: Some(c"overlay".into()),
    };
    let mut separate = vec![source];
    for param in &params {
        match (param.key.to_bytes(), &param.value) {
            (b"lowerdir", Some(value)) => {
                for layer in split_layers(value.to_bytes()) {
                    separate.push(FsParam {
                        key: c"lowerdir+".into(),
                        value: Some(cstring(field, layer)?),
                    });
                }
            }
            _ => separate.push(param.clone()),
        }
    }
    let short = |p: &FsParam| p.value.as_ref().is_none_or(|v| v.count_bytes() <= LONGEST_VALUE);
    if kernel >= SEPARATE_LAYERS && separate.iter().all(short) {
        return Ok(Source::Fs {
            fs_type: c"overlay".into(),
            params: separate,
            fallback: None,
        });
    }
    legacy(field, "overlay", &params)
}

/// Splits at colons; a backslash takes the meaning of the next character away, as the overlay filesystem reads it.
fn split_layers(value: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let layer = layers.last_mut().expect("there is always one");
        match byte {
            b':' => layers.push(Vec::new()),
            b'\\' => layer.extend(bytes.next()),
            _ => layer.push(byte),
        }
    }
    layers.retain(|l| !l.is_empty());
    layers
}

/// By mount(2), for values that fsconfig(2) does not take.
fn legacy(field: &str, fs_type: &str, params: &[FsParam]) -> Result<Source> {
    let mut data = Vec::new();
    let mut source = cstring(field, fs_type)?;
    for param in params {
        if param.key.as_c_str() == c"source" {
            source = param.value.clone().unwrap_or_default();
            continue;
        }
        if !data.is_empty() {
            data.push(b',');
        }
        data.extend_from_slice(param.key.to_bytes());
        if let Some(value) = &param.value {
            data.push(b'=');
            data.extend_from_slice(value.to_bytes());
        }
    }
    if data.len() > LONGEST_DATA {
        let reason = format!("options of {} bytes; this kernel takes {LONGEST_DATA}", data.len());
        return Err(unsupported(format!("{field}.options"), reason));
    }
    Ok(Source::Legacy {
        fs_type: cstring(field, fs_type)?,
        source,
        data: cstring(field, data)?,
    })
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
        _ => refuse(format!("'{shown}' may only be a procfs")),
    }
}
