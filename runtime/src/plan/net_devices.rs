//! Network devices that become the container's (runtime spec, "Network Devices").

use std::collections::BTreeMap;

use longshore_linux::Namespaces;
use oci_spec::runtime::Linux;

use super::op::{NetDevice, Op, Rendezvous};
use super::paths::{cstring, invalid, unsupported};
use super::{Builder, Privilege};
use crate::Result;

const FIELD: &str = "linux.netDevices";
/// With its null, a name is at most 16 bytes (`IFNAMSIZ`).
const LONGEST_NAME: usize = 15;
/// Where the kernel puts a number of its own.
const NUMBER: &str = "%d";

impl Builder<'_> {
    /// Checks `linux.netDevices` and has the child wait, once it is in its network namespace, until the host has moved them there.
    pub(super) fn net_devices(&mut self, linux: Option<&Linux>) -> Result<()> {
        let devices = linux.and_then(|l| l.net_devices().as_ref()).filter(|d| !d.is_empty());
        let Some(devices) = devices else { return Ok(()) };
        if !self.namespaces.has(Namespaces::NETWORK) {
            return Err(invalid(FIELD, "it needs a network namespace in linux.namespaces"));
        }
        if self.facts.privilege == Privilege::None {
            let reason = "an ordinary user may not move network devices; run as root or leave it out";
            return Err(unsupported(FIELD, reason));
        }
        let mut taken = BTreeMap::new();
        for (name, device) in devices.iter().collect::<BTreeMap<_, _>>() {
            let field = format!("{FIELD}.{name}");
            check_name(&field, name)?;
            let inside = device.name().as_deref().filter(|inside| !inside.is_empty());
            let inside = inside.unwrap_or(name);
            check_name(&format!("{field}.name"), inside.strip_suffix(NUMBER).unwrap_or(inside))?;
            if let Some(other) = taken.insert(inside, name).filter(|_| !inside.ends_with(NUMBER)) {
                let reason = format!("'{inside}' is the name of {other} in the container already");
                return Err(invalid(format!("{field}.name"), reason));
            }
            self.net_devices.push(NetDevice {
                name: cstring(&field, name.as_str())?,
                inside: cstring(&field, inside)?,
                field,
            });
        }
        self.step(FIELD, Op::Meet(Rendezvous::NetDevices));
        Ok(())
    }
}

/// What the kernel takes for a name, and no template.
fn check_name(field: &str, name: &str) -> Result<()> {
    let strange = |c: char| c == '/' || c == ':' || c == '%' || c.is_ascii_whitespace();
    if name.is_empty() || name.len() > LONGEST_NAME || [".", ".."].contains(&name) || name.contains(strange) {
        let reason = format!(
            "'{name}' is not the name of a network device: at most {LONGEST_NAME} bytes, without slash, colon, percent sign and space; \
             {NUMBER} at the end of a name inside is a number that the kernel chooses"
        );
        return Err(invalid(field, reason));
    }
    Ok(())
}
