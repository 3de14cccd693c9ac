use super::super::control::Cgroup;
use super::super::group::Group;
use super::parse;
use crate::{IoEntry, IoStats, IoTables, Result};

impl Cgroup {
    pub(super) fn io(&self) -> Result<Option<IoStats>> {
        let tables = if let Some(v1) = self.v1("blkio") {
            of_v1(v1)?
        } else if let Some(v2) = self.v2_with("io.stat")? {
            v2.figures("io.stat", parse::io_stat)?.unwrap_or_default()
        } else {
            return Ok(None);
        };
        Ok(Some(IoStats {
            read_bytes: sum(&tables.bytes, "Read"),
            write_bytes: sum(&tables.bytes, "Write"),
            reads: sum(&tables.operations, "Read"),
            writes: sum(&tables.operations, "Write"),
            tables,
            pressure: self.pressure("io.pressure")?,
        }))
    }
}

fn sum(entries: &[IoEntry], operation: &str) -> u64 {
    let of = entries.iter().filter(|e| e.operation == operation);
    of.fold(0, |sum, entry| sum.saturating_add(entry.value))
}

/// The first kind of files that tells something: of BFQ, of schedulers that Linux had before 5.0, of throttling.
fn of_v1(group: &Group) -> Result<IoTables> {
    let read = |name: String| group.figures(&name, parse::blkio).map(Option::unwrap_or_default);
    for prefix in ["blkio.bfq", "blkio"] {
        let operations = read(format!("{prefix}.io_serviced_recursive"))?;
        if operations.is_empty() {
            continue;
        }
        return Ok(IoTables {
            operations,
            bytes: read(format!("{prefix}.io_service_bytes_recursive"))?,
            queued: read(format!("{prefix}.io_queued_recursive"))?,
            service_time: read(format!("{prefix}.io_service_time_recursive"))?,
            wait_time: read(format!("{prefix}.io_wait_time_recursive"))?,
            merged: read(format!("{prefix}.io_merged_recursive"))?,
            time: read(format!("{prefix}.time_recursive"))?,
            sectors: read(format!("{prefix}.sectors_recursive"))?,
        });
    }
    let mut tables = IoTables::default();
    for suffix in ["_recursive", ""] {
        tables.operations = read(format!("blkio.throttle.io_serviced{suffix}"))?;
        if !tables.operations.is_empty() {
            tables.bytes = read(format!("blkio.throttle.io_service_bytes{suffix}"))?;
            break;
        }
    }
    Ok(tables)
}
