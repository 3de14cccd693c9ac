use std::path::Path;

use longshore_linux::Namespaces;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::Builder;
use super::op::{NodeOp, Op};
use super::paths::{cstring, in_root, invalid, parent_and_name};
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

/// Links that every container has.
const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

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
        let bound = spec.mounts().iter().flatten().any(|m| {
            let options = m.options().as_deref().unwrap_or_default();
            m.destination() == Path::new("/dev") && (options.iter().any(|o| o == "bind" || o == "rbind"))
        });
        if bound {
            return Ok(());
        }
        for (path, major, minor) in DEFAULT_DEVICES {
            if asked.iter().any(|d| d.path() == Path::new(path)) {
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
        for (path, target) in DEFAULT_LINKS {
            let (parent, name) = parent_and_name("linux.devices", Path::new(path))?;
            self.step(
                "linux.devices",
                Op::Symlink {
                    parent,
                    name,
                    target: cstring("linux.devices", target)?,
                },
            );
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
        if self.namespaces.has(Namespaces::USER) {
            // mknod(2) is not for user namespaces; the host's own node is bound, as it is.
            let host = cstring(field, path.as_os_str().as_encoded_bytes())?;
            self.step(
                field,
                Op::BindNode {
                    host,
                    at: in_root(field, path)?,
                },
            );
            return Ok(());
        }
        let (parent, name) = parent_and_name(field, path)?;
        let (uid, gid) = owner;
        self.step(
            field,
            Op::Node(Box::new(NodeOp {
                parent,
                name,
                mode,
                major,
                minor,
                uid,
                gid,
            })),
        );
        Ok(())
    }
}
