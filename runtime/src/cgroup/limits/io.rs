use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::super::host::Home;
use super::{Builder, Value, invalid, unsupported};
use crate::Result;

const WEIGHT: &str = "linux.resources.blockIO.weight";
const WEIGHT_DEVICE: &str = "linux.resources.blockIO.weightDevice";

/// BFQ's file has v1's scale. It is there if any device could use it, and then `io.weight` has no effect on those that do.
const V2_WEIGHTS: [&str; 2] = ["io.bfq.weight", "io.weight"];

pub(super) fn block_io(b: &mut Builder<'_>, io: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        let weight = checked(WEIGHT, weight)?;
        match home(b, WEIGHT)? {
            Home::V1 => b.set(
                Home::V1,
                "blkio",
                WEIGHT,
                &["blkio.weight", "blkio.bfq.weight"],
                weight.to_string(),
            ),
            Home::V2 => {
                let write = b.set(Home::V2, "io", WEIGHT, &V2_WEIGHTS, "");
                write.value = Value::ByFile(vec![format!("default {weight}"), format!("default {}", wide(weight))]);
                write
            }
        };
    }
    if io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(unsupported(
            "linux.resources.blockIO.leafWeight",
            "Linux has had no leaf weights since 5.0; leave it out",
        ));
    }
    weights(b, io)?;
    let throttles = [
        (
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps",
            io.throttle_read_bps_device(),
        ),
        (
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
            io.throttle_write_bps_device(),
        ),
        (
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
            io.throttle_read_iops_device(),
        ),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            io.throttle_write_iops_device(),
        ),
    ];
    for (name, v1, v2, devices) in throttles {
        let field = format!("linux.resources.blockIO.{name}");
        for device in devices.iter().flatten() {
            throttle(b, &field, v1, v2, device)?;
        }
    }
    Ok(())
}

fn home(b: &Builder<'_>, field: &str) -> Result<Home> {
    match b.host.home("blkio") {
        Some(Home::V1) => Ok(Home::V1),
        _ => b.home("io", field),
    }
}

fn weights(b: &mut Builder<'_>, io: &LinuxBlockIo) -> Result<()> {
    for device in io.weight_device().iter().flatten() {
        if device.leaf_weight().is_some_and(|w| w != 0) {
            return Err(unsupported(
                WEIGHT_DEVICE,
                "Linux has had no leaf weights since 5.0; leave them out",
            ));
        }
        let Some(weight) = device.weight().filter(|w| *w != 0) else {
            continue;
        };
        let (weight, number) = (
            checked(WEIGHT_DEVICE, weight)?,
            number(WEIGHT_DEVICE, device.major(), device.minor())?,
        );
        match home(b, WEIGHT_DEVICE)? {
            Home::V1 => {
                let files = ["blkio.weight_device", "blkio.bfq.weight_device"];
                b.set(Home::V1, "blkio", WEIGHT_DEVICE, &files, format!("{number} {weight}"))
            }
            Home::V2 => {
                let write = b.set(Home::V2, "io", WEIGHT_DEVICE, &V2_WEIGHTS, "");
                write.value = Value::ByFile(vec![format!("{number} {weight}"), format!("{number} {}", wide(weight))]);
                write
            }
        };
    }
    Ok(())
}

fn throttle(b: &mut Builder<'_>, field: &str, v1: &str, v2: &str, device: &LinuxThrottleDevice) -> Result<()> {
    let (number, rate) = (number(field, device.major(), device.minor())?, device.rate());
    match home(b, field)? {
        Home::V1 => b.set(Home::V1, "blkio", field, &[v1], format!("{number} {rate}")),
        Home::V2 => {
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            b.set(Home::V2, "io", field, &["io.max"], format!("{number} {v2}={rate}"))
        }
    };
    Ok(())
}

fn number(field: &str, major: i64, minor: i64) -> Result<String> {
    if major < 0 || minor < 0 {
        return Err(invalid(field, format!("{major}:{minor} is not a device's number")));
    }
    Ok(format!("{major}:{minor}"))
}

fn checked(field: &str, weight: u16) -> Result<u16> {
    match weight {
        10..=1000 => Ok(weight),
        _ => Err(invalid(field, format!("is {weight}, and 10 to 1000 are allowed"))),
    }
}

/// v1's scale of 10 to 1000 as v2's of 1 to 10000.
pub(super) fn wide(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}
