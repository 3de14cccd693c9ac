//! `--device`: nodes of this machine, and devices by their CDI names.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use longshore::bundle::{Cdi, CdiEdits, Device, SpecBuilder};

/// The devices of one container.
pub(crate) struct Devices {
    nodes: Vec<Device>,
    cdi: CdiEdits,
}

impl Devices {
    /// Finds what was asked for; `directories` is where CDI specifications are, if not where they usually are.
    pub(crate) fn from(asked: &[String], directories: &[PathBuf]) -> Result<Self> {
        let (nodes, names): (Vec<_>, Vec<_>) = asked.iter().partition(|device| device.starts_with('/'));
        let nodes = nodes.into_iter().map(|device| node(device)).collect::<Result<_>>()?;
        let cdi = match (names.is_empty(), directories) {
            (true, _) => {
                return Ok(Self {
                    nodes,
                    cdi: CdiEdits::default(),
                });
            }
            (false, []) => Cdi::of_host()?,
            (false, directories) => Cdi::read(directories)?,
        };
        let cdi = cdi.resolve(&names).context("--device")?;
        Ok(Self { nodes, cdi })
    }

    pub(crate) fn apply(self, spec: SpecBuilder) -> SpecBuilder {
        spec.devices(self.nodes).with_cdi(self.cdi)
    }
}

/// `/dev/NODE[:/dev/NODE][:rwm]`.
fn node(asked: &str) -> Result<Device> {
    let words: Vec<&str> = asked.split(':').collect();
    let (source, target, access) = match words.as_slice() {
        [source] => (source, None, None),
        [source, target] if target.starts_with('/') => (source, Some(target), None),
        [source, access] => (source, None, Some(access)),
        [source, target, access] => (source, Some(target), Some(access)),
        _ => bail!("--device {asked}: write /dev/NODE, /dev/NODE:/dev/NODE or /dev/NODE:/dev/NODE:rwm"),
    };
    if let Some(access) = access
        && (access.is_empty() || access.len() > 3 || !access.chars().all(|right| "rwm".contains(right)))
    {
        bail!("--device {asked}: '{access}' is made of r, w and m");
    }
    let mut device = Device::of_host(source).with_context(|| format!("--device {asked}"))?;
    if let Some(target) = target {
        device = device.at(*target);
    }
    if let Some(access) = access {
        device = device.access(*access);
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_say_what_is_wrong_with_them() {
        for good in ["/dev/null", "/dev/null:/dev/x", "/dev/null:r", "/dev/null:/dev/x:rw"] {
            node(good).expect(good);
        }
        for (device, complaint) in [
            ("/dev/no-such", "--device /dev/no-such"),
            ("/dev/null:x", "made of r, w and m"),
            ("/dev/null:/dev/x:rx", "made of r, w and m"),
            ("/dev/null:/dev/x:", "made of r, w and m"),
            ("/dev/null:/dev/x:rw:m", "write /dev/NODE"),
            ("/dev", "--device /dev"),
        ] {
            let error = node(device).expect_err(device).to_string();
            assert!(error.contains(complaint), "{device}: {error}");
        }
    }
}
