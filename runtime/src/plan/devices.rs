use std::path::Path;

use longshore_linux::Namespaces;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount, Spec};

use super::Builder;
use super::op::{NodeOp, Op, Over};
use super::paths::{clean, cpath, cstring, in_root, invalid};
use crate::Result;

/// Devices that every container has (runtime spec, "Default Devices"): path, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that every container has. An image's own terminals are none of the container's.
const DEFAULT_LINKS: [(&str, &str, Over); 6] = [
    ("/dev/fd", "/proc/self/fd", Over::Keep),
    ("/dev/stdin", "/proc/self/fd/0", Over::Keep),
    ("/dev/stdout", "/proc/self/fd/1", Over::Keep),
    ("/dev/stderr", "/proc/self/fd/2", Over::Keep),
    ("/dev/core", "/proc/kcore", Over::Keep),
    (PTMX, "pts/ptmx", Over::Replace),
];

/// Always the one of the container's devpts, even if it is asked for as a device.
const PTMX: &str = "/dev/ptmx";

const S_IFMT: u32 = 0o170_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

impl Builder<'_> {
    /// Nodes and links in a `/dev` of the container's own; a `/dev` that is bound from the host is left alone.
    pub(super) fn devices(&mut self, spec: &Spec) -> Result<()> {
        let asked = spec
            .linux()
            .as_ref()
            .and_then(|l| l.devices().as_deref())
            .unwrap_or_default();
        let is_dev = |m: &Mount| clean(&Path::new("/").join(m.destination())) == Path::new("/dev");
        let bound = spec.mounts().iter().flatten().any(|m| {
            let options = m.options().as_deref().unwrap_or_default();
            let bind = m.typ().as_deref() == Some("bind") || options.iter().any(|o| o == "bind" || o == "rbind");
            bind && is_dev(m)
        });
        if bound {
            return Ok(());
        }
        // Of a root that is the host's too, that goes for the names that every container has.
        let is_whole = self.options.rootfs.is_empty() && self.root_path.as_deref().map(clean) == Some("/".into());
        let has_own = spec.mounts().iter().flatten().any(is_dev);
        let (defaults, links) = if is_whole && !has_own {
            (&[][..], &[][..])
        } else {
            (&DEFAULT_DEVICES[..], &DEFAULT_LINKS[..])
        };
        self.own_null = true;
        for &(path, major, minor) in defaults {
            if asked.iter().any(|d| clean(d.path()) == Path::new(path)) {
                continue;
            }
            self.node(
                "linux.devices",
                Path::new(path),
                (S_IFCHR | 0o666, major, minor),
                (0, 0),
            )?;
        }
        for (i, device) in asked.iter().enumerate() {
            self.asked_device(&format!("linux.devices[{i}]"), device)?;
        }
        for &(path, target, over) in links {
            let at = in_root("linux.devices", Path::new(path))?;
            let target = cstring("linux.devices", target)?;
            self.step("linux.devices", Op::Symlink { at, target, over });
        }
        Ok(())
    }

    fn asked_device(&mut self, field: &str, device: &LinuxDevice) -> Result<()> {
        let number = |name: &str, n: i64| {
            u32::try_from(n).map_err(|_| invalid(format!("{field}.{name}"), format!("{n} is not a device number")))
        };
        if !device.path().is_absolute() {
            return Err(invalid(format!("{field}.path"), "it is not absolute"));
        }
        if clean(device.path()) == Path::new(PTMX) {
            return Ok(());
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => S_IFCHR,
            LinuxDeviceType::B => S_IFBLK,
            LinuxDeviceType::P => S_IFIFO,
            LinuxDeviceType::A => return Err(invalid(format!("{field}.type"), "'a' is not the type of a node")),
        };
        let mode = kind | device.file_mode().unwrap_or(0o666) & 0o7777;
        let numbers = (mode, number("major", device.major())?, number("minor", device.minor())?);
        let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        self.node(field, device.path(), numbers, owner)
    }

    fn node(
        &mut self,
        field: &str,
        path: &Path,
        (mode, major, minor): (u32, u32, u32),
        owner: (u32, u32),
    ) -> Result<()> {
        let (uid, gid) = owner;
        let node = Box::new(NodeOp {
            at: in_root(field, path)?,
            host: cpath(field, &clean(path))?,
            mode,
            major,
            minor,
            uid,
            gid,
        });
        if node.at.names.is_empty() {
            return Err(invalid(format!("{field}.path"), "it is the root itself"));
        }
        // mknod(2) of a device is not for user namespaces; the host's own node is bound, as it is.
        let bind = self.namespaces.has(Namespaces::USER) && mode & S_IFMT != S_IFIFO;
        self.step(field, if bind { Op::BindNode(node) } else { Op::Node(node) });
        Ok(())
    }
}
