use oci_spec::runtime::LinuxCpu;

use super::super::host::Home;
use super::{Builder, Value, invalid, v1_only};
use crate::Result;

pub(super) fn cpu(b: &mut Builder<'_>, cpu: &LinuxCpu) -> Result<()> {
    time(b, cpu)?;
    real_time(b, cpu)?;
    set(b, "linux.resources.cpu.cpus", "cpuset.cpus", cpu.cpus().as_deref())?;
    set(b, "linux.resources.cpu.mems", "cpuset.mems", cpu.mems().as_deref())
}

fn time(b: &mut Builder<'_>, cpu: &LinuxCpu) -> Result<()> {
    let field = "linux.resources.cpu.shares";
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        match b.home("cpu", field)? {
            Home::V1 => b.set(Home::V1, "cpu", field, &["cpu.shares"], shares.to_string()),
            Home::V2 => b.set(Home::V2, "cpu", field, &["cpu.weight"], weight(shares).to_string()),
        };
    }
    let (period, quota) = (cpu.period().filter(|p| *p != 0), cpu.quota().filter(|q| *q != 0));
    let field = if quota.is_some() {
        "linux.resources.cpu.quota"
    } else {
        "linux.resources.cpu.period"
    };
    if period.is_some() || quota.is_some() {
        match b.home("cpu", field)? {
            Home::V1 => {
                if let Some(period) = period {
                    let field = "linux.resources.cpu.period";
                    b.set(Home::V1, "cpu", field, &["cpu.cfs_period_us"], period.to_string());
                }
                if let Some(quota) = quota {
                    b.set(Home::V1, "cpu", field, &["cpu.cfs_quota_us"], quota.to_string());
                }
            }
            Home::V2 => {
                let written = quota.map(|quota| if quota > 0 { quota.to_string() } else { "max".to_owned() });
                let write = b.set(
                    Home::V2,
                    "cpu",
                    field,
                    &["cpu.max"],
                    written.clone().unwrap_or_default(),
                );
                match (written, period) {
                    (Some(quota), Some(period)) => write.value = Value::Text(format!("{quota} {period}")),
                    (None, Some(period)) => write.value = Value::Period(period),
                    // The kernel leaves the period as it is.
                    (_, None) => {}
                }
            }
        }
    }
    let field = "linux.resources.cpu.burst";
    if let Some(burst) = cpu.burst() {
        let home = b.home("cpu", field)?;
        let file = if home == Home::V1 {
            "cpu.cfs_burst_us"
        } else {
            "cpu.max.burst"
        };
        b.set(home, "cpu", field, &[file], burst.to_string());
    }
    let field = "linux.resources.cpu.idle";
    if let Some(idle) = cpu.idle() {
        if !matches!(idle, 0 | 1) {
            return Err(invalid(field, format!("is {idle}, and 0 and 1 are allowed")));
        }
        let home = b.home("cpu", field)?;
        b.set(home, "cpu", field, &["cpu.idle"], idle.to_string());
    }
    Ok(())
}

fn real_time(b: &mut Builder<'_>, cpu: &LinuxCpu) -> Result<()> {
    let period = cpu.realtime_period().filter(|p| *p != 0).map(|p| p.to_string());
    let runtime = cpu.realtime_runtime().filter(|r| *r != 0).map(|r| r.to_string());
    for (field, file, value) in [
        ("linux.resources.cpu.realtimePeriod", "cpu.rt_period_us", period),
        ("linux.resources.cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime),
    ] {
        let Some(value) = value else { continue };
        if b.home("cpu", field)? == Home::V2 {
            return Err(v1_only(field));
        }
        b.set(Home::V1, "cpu", field, &[file], value);
    }
    Ok(())
}

/// A list such as `0-3,7`.
fn set(b: &mut Builder<'_>, field: &str, file: &str, list: Option<&str>) -> Result<()> {
    let Some(list) = list.map(str::trim).filter(|l| !l.is_empty()) else {
        return Ok(());
    };
    if !list.bytes().all(|c| c.is_ascii_digit() || b",-:/".contains(&c)) {
        return Err(invalid(
            field,
            format!("'{list}' is not a list of numbers and ranges such as 0-3,7"),
        ));
    }
    let home = b.home("cpuset", field)?;
    b.set(home, "cpuset", field, &[file], list);
    Ok(())
}

/// v1's shares (2 to 262144, normally 1024) as v2's weight (1 to 10000, normally 100): a curve through these three points, the
/// one that other runtimes and systemd have agreed on.
pub(super) fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // What is a whole number on paper must not become the next one.
    ((10f64.powf(exponent) - 1e-6).ceil() as u64).clamp(1, 10_000)
}
