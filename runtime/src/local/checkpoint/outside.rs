//! What of a container is not its own: mounts and namespaces that CRIU must be told of.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::{OFlags, ResolveFlags, openat2};

use crate::cgroup::{Location, Mode};
use crate::host::io_error;
use crate::{Error, Result};

/// Devices that every container has.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// A mount with something outside: where it is inside, and what is there from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) inside: PathBuf,
    pub(super) source: PathBuf,
}

/// Whether a mount of the spec binds something.
pub(super) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind") || options.iter().any(|option| option == "bind" || option == "rbind")
}

/// The mounts that have something outside, by the spec; `bundle` is where relative sources start.
pub(super) fn mounts(spec: &Spec, bundle: &Path, cgroups: &Location, mode: Mode) -> Vec<Outside> {
    let has_cgroup_namespace = namespace(spec, LinuxNamespaceType::Cgroup).is_some();
    let mut outside = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let inside = mount.destination();
        if is_bind(mount) {
            let source = mount.source().clone().unwrap_or_default();
            outside.push(Outside {
                inside: inside.clone(),
                source: bundle.join(source),
            });
        } else if mount.typ().as_deref() == Some("cgroup") && mode != Mode::Unified && !has_cgroup_namespace {
            // The container's groups, bound one by one.
            for place in &cgroups.places {
                let Some(name) = place.mount.file_name() else { continue };
                outside.push(Outside {
                    inside: inside.join(name),
                    source: place.mount.join(&place.path),
                });
            }
        }
    }
    let asked = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.devices().as_deref())
        .unwrap_or_default();
    let devices = DEVICES
        .into_iter()
        .map(Path::new)
        .filter(|path| asked.iter().all(|device| device.path() != path));
    let devices = devices.chain(asked.iter().map(|device| device.path().as_path()));
    outside.extend(devices.map(|path| Outside {
        inside: path.to_owned(),
        source: path.to_owned(),
    }));
    outside
}

/// How the spec has a namespace: not at all, its own (an empty path), or another's.
pub(super) fn namespace(spec: &Spec, kind: LinuxNamespaceType) -> Option<PathBuf> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let found = namespaces
        .into_iter()
        .flatten()
        .find(|namespace| namespace.typ() == kind);
    found.map(|namespace| namespace.path().clone().unwrap_or_default())
}

/// A namespace that is another's, if it is.
pub(super) fn joined(spec: &Spec, kind: LinuxNamespaceType) -> Option<PathBuf> {
    namespace(spec, kind).filter(|path| !path.as_os_str().is_empty())
}

/// Namespaces that CRIU leaves as they are, if they are another's: kind, its word and the name that both sides know.
pub(super) const EXTERNAL: [(LinuxNamespaceType, &str, &str); 2] = [
    (LinuxNamespaceType::Network, "net", "extRootNetNS"),
    (LinuxNamespaceType::Pid, "pid", "extRootPidNS"),
];

/// Namespaces of others that CRIU joins.
pub(super) const JOINED: [(LinuxNamespaceType, &str); 5] = [
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Uts, "uts"),
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Mount, "mnt"),
    (LinuxNamespaceType::Time, "time"),
];

/// CRIU's description of the external namespaces, for a dump.
pub(super) fn external(spec: &Spec) -> Result<Vec<String>> {
    let mut external = Vec::new();
    for (kind, word, name) in EXTERNAL {
        if let Some(path) = joined(spec, kind) {
            let found = fs::metadata(&path).map_err(io_error(format!("look at the namespace {}", path.display())))?;
            external.push(format!("{word}[{}]:{name}", found.ino()));
        }
    }
    Ok(external)
}

/// A root, to look paths up in.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    name: PathBuf,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fail = || format!("open {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(io_error(fail()))?;
        let name = name_of(&dir).map_err(io_error(fail()))?;
        Ok(Self { dir, name })
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// The path without symbolic links, as the kernel has it in its list of mounts; the path itself if nothing is there.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        let found = openat2(
            &self.dir,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        let found = found.ok().and_then(|found| name_of(&found).ok());
        let below = found.and_then(|found| {
            found
                .strip_prefix(&self.name)
                .ok()
                .map(|below| Path::new("/").join(below))
        });
        below.unwrap_or_else(|| path.to_owned())
    }
}

fn name_of(fd: &OwnedFd) -> std::io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(super) fn text(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::Criu {
        reason: format!("{} is not UTF-8, and criu can't be told of it", path.display()),
    });
    text.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> Spec {
        let spec = json!({
            "ociVersion": "1.0.2",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/data", "type": "none", "source": "data", "options": ["rbind"] },
                { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" },
            ],
            "linux": {
                "namespaces": [{ "type": "network", "path": "/proc/self/ns/net" }, { "type": "pid" }],
                "devices": [{ "path": "/dev/tty", "type": "c", "major": 5, "minor": 0 }],
            },
        });
        serde_json::from_value(spec).expect("a spec")
    }

    #[test]
    fn what_is_bound_is_outside() {
        let place = crate::cgroup::Place {
            mount: "/sys/fs/cgroup/pids".into(),
            path: "a/b".into(),
            inode: None,
        };
        let cgroups = Location {
            places: vec![place],
            unit: None,
        };
        let found = mounts(&spec(), Path::new("/bundle"), &cgroups, Mode::Hybrid);
        let pairs: Vec<_> = found.iter().map(|m| (m.inside.to_str(), m.source.to_str())).collect();
        assert_eq!(pairs[0], (Some("/data"), Some("/bundle/data")));
        assert_eq!(pairs[1], (Some("/sys/fs/cgroup/pids"), Some("/sys/fs/cgroup/pids/a/b")));
        assert_eq!(pairs.len(), 8, "and each device once: {pairs:?}");
        assert_eq!(mounts(&spec(), Path::new("/bundle"), &cgroups, Mode::Unified).len(), 7);
    }

    #[test]
    fn a_namespace_of_another_is_named_by_its_inode() {
        let external = external(&spec()).expect("it is there");
        let inode = fs::metadata("/proc/self/ns/net").expect("it is there").ino();
        assert_eq!(external, [format!("net[{inode}]:extRootNetNS")]);
        assert_eq!(joined(&spec(), LinuxNamespaceType::Pid), None);
    }

    #[test]
    fn a_path_is_told_without_its_links() {
        let place = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(place.path().join("real/conf")).expect("made");
        std::os::unix::fs::symlink("/real/conf", place.path().join("conf")).expect("linked");
        let root = Root::open(place.path()).expect("it is there");
        assert_eq!(root.real(Path::new("/conf")), Path::new("/real/conf"));
        assert_eq!(root.real(Path::new("/none")), Path::new("/none"));
    }

    /// A container may put any link into its root filesystem before it is saved or brought back: what CRIU is told is inside all the same.
    #[test]
    fn a_link_of_the_container_leads_no_mount_out_of_its_root() {
        let place = tempfile::tempdir().expect("a directory");
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        fs::create_dir_all(root.join("real")).expect("made");
        fs::create_dir_all(outside.join("secret")).expect("made");
        std::os::unix::fs::symlink("../../../../../..", root.join("up")).expect("linked");
        std::os::unix::fs::symlink(&outside, root.join("absolute")).expect("linked");
        std::os::unix::fs::symlink("../outside", root.join("relative")).expect("linked");
        std::os::unix::fs::symlink("/proc/self/root", root.join("magic")).expect("linked");
        let opened = Root::open(&root).expect("it is there");
        assert_eq!(
            opened.real(Path::new("/up/real")),
            Path::new("/real"),
            "the top is the root's own"
        );
        for link in ["/absolute/secret", "/relative/secret", "/magic/etc"] {
            let found = opened.real(Path::new(link));
            assert_eq!(found, Path::new(link), "there is nothing of that name inside");
        }
    }
}
