//! The kernel's texts. What is not understood is passed over: a file that grows new words must not take the figures away.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{IoEntry, IoTables, Pressure, PressureLine, RdmaStats};

/// More processors and nodes than this, a list does not have.
const MOST: usize = 1 << 16;

/// A file of `key value` lines.
#[derive(Debug, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, u64>);

impl Table {
    pub(super) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    pub(super) fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

/// Some values of `key value` lines; 0 for those that are not there.
pub(super) fn values<const N: usize>(text: &str, keys: [&str; N]) -> [u64; N] {
    let mut values = [0; N];
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(at) = keys.iter().position(|wanted| *wanted == key)
            && let Ok(value) = value.trim().parse()
        {
            values[at] = value;
        }
    }
    values
}

/// Numbers of nanoseconds, one for each processor.
pub(super) fn nanoseconds(text: &str) -> Vec<Duration> {
    let numbers = text.split_ascii_whitespace().map_while(|word| word.parse().ok());
    numbers.map(Duration::from_nanos).take(MOST).collect()
}

/// `cpuacct.usage_all`: a head line, then `processor user system`.
pub(super) fn usage_all(text: &str) -> (Vec<Duration>, Vec<Duration>) {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1).map(|word| word.parse().ok());
        let (user, system) = (words.next()??, words.next()??);
        Some((Duration::from_nanos(user), Duration::from_nanos(system)))
    };
    text.lines().skip(1).filter_map(line).take(MOST).unzip()
}

/// A list such as `0-3,7`.
pub(super) fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    let ranges = text.trim().split(',').filter_map(range);
    ranges.flatten().take(MOST).collect()
}

/// v1's files by device: lines of `8:0 Read 4096`, or `8:0 4096`; the last one is a total.
pub(super) fn blkio(text: &str) -> Vec<IoEntry> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (device, operation, value) = match words[..] {
            [device, value] => (device, "", value),
            [device, operation, value] => (device, operation, value),
            _ => return None,
        };
        entry(device, operation, value)
    };
    text.lines().filter_map(line).collect()
}

/// v2's: lines of `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`.
pub(super) fn io_stat(text: &str) -> IoTables {
    let mut tables = IoTables::default();
    for line in text.lines() {
        let Some((device, words)) = line.split_once(' ') else {
            continue;
        };
        for (key, value) in words.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            let (table, operation) = match key {
                "rbytes" => (&mut tables.bytes, "Read"),
                "wbytes" => (&mut tables.bytes, "Write"),
                "rios" => (&mut tables.operations, "Read"),
                "wios" => (&mut tables.operations, "Write"),
                _ => continue,
            };
            table.extend(entry(device, operation, value));
        }
    }
    tables
}

fn entry(device: &str, operation: &str, value: &str) -> Option<IoEntry> {
    let (major, minor) = device.split_once(':')?;
    Some(IoEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation: operation.to_owned(),
        value: value.parse().ok()?,
    })
}

/// Lines of `mlx4_0 hca_handle=2 hca_object=2000`, where a limit may be `max`.
pub(super) fn rdma(current: &str, limits: &str) -> BTreeMap<String, RdmaStats> {
    let mut devices: BTreeMap<String, RdmaStats> = BTreeMap::new();
    for (text, is_limit) in [(current, false), (limits, true)] {
        for (device, words) in text.lines().filter_map(|line| line.split_once(' ')) {
            let stats = devices.entry(device.to_owned()).or_default();
            for (key, value) in words.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
                let Ok(value) = value.parse() else { continue };
                match (key, is_limit) {
                    ("hca_handle", false) => stats.handles = value,
                    ("hca_object", false) => stats.objects = value,
                    ("hca_handle", true) => stats.handle_limit = Some(value),
                    ("hca_object", true) => stats.object_limit = Some(value),
                    _ => {}
                }
            }
        }
    }
    devices
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let words = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let value = |key: &str| {
            words
                .split_ascii_whitespace()
                .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        };
        let share = |key| value(key)?.parse::<f64>().ok().filter(|share| share.is_finite());
        Some(PressureLine {
            avg10: share("avg10")?,
            avg60: share("avg60")?,
            avg300: share("avg300")?,
            total: Duration::from_micros(value("total")?.parse().ok()?),
        })
    };
    // Older kernels have no `full` line for the processor.
    Some(Pressure {
        some: line("some ")?,
        full: line("full ").unwrap_or_default(),
    })
}

/// Reads a text as each of them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_all(text: &str) {
    let _ = (
        Table::parse(text),
        nanoseconds(text),
        usage_all(text),
        list(text),
        blkio(text),
    );
    let _ = (io_stat(text), rdma(text, text), pressure(text));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_files_are_read() {
        let text =
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=2500\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = pressure(text).expect("valid");
        assert_eq!(both.some.avg10, 1.5);
        assert_eq!(both.some.total, Duration::from_micros(2500));
        assert_eq!(both.full.total, Duration::from_micros(7));
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1")
                .expect("valid")
                .full,
            PressureLine::default()
        );
        for odd in [
            "",
            "some",
            "some avg10=x avg60=0 avg300=0 total=0",
            "some avg10=nan avg60=0 avg300=0 total=0",
            "full avg10=0 avg60=0 avg300=0 total=0",
        ] {
            assert_eq!(pressure(odd), None, "{odd}");
        }
    }

    fn short(entries: &[IoEntry]) -> Vec<(u64, u64, &str, u64)> {
        let one = |e: &'_ IoEntry| (e.major, e.minor, e.value);
        let operations = entries.iter().map(|e| e.operation.as_str());
        let numbers = entries.iter().map(one).zip(operations);
        numbers
            .map(|((major, minor, value), operation)| (major, minor, operation, value))
            .collect()
    }

    #[test]
    fn figures_by_device_are_read() {
        let entries = blkio("8:0 Read 4096\n8:0 Write 1\n8:16 77\n8:x 5\n8:16 Total y\nTotal 99\n");
        assert_eq!(
            short(&entries),
            [(8, 0, "Read", 4096), (8, 0, "Write", 1), (8, 16, "", 77)]
        );
        let tables = io_stat("8:0 rbytes=10 wbytes=2 rios=3 wios=4 dbytes=0\n8:16 rbytes=1 odd rbytes=x\n8:32\n");
        assert_eq!(
            short(&tables.bytes),
            [(8, 0, "Read", 10), (8, 0, "Write", 2), (8, 16, "Read", 1)]
        );
        assert_eq!(short(&tables.operations), [(8, 0, "Read", 3), (8, 0, "Write", 4)]);
    }

    #[test]
    fn tables_want_the_whole_key() {
        let table = Table::parse("oom_kill_disable 1\noom_kill 3\nodd\nkey value\nbig 18446744073709551616\n");
        assert_eq!(table.get("oom_kill"), 3);
        assert_eq!(table.get("under_oom"), 0);
        assert_eq!(table.0.len(), 2);
        let text = "oom_kill_disable 1\noom_kill 3\nodd\nkey value\nbig 18446744073709551616\n";
        assert_eq!(values(text, ["under_oom", "oom_kill", "key"]), [0, 3, 0]);
    }

    #[test]
    fn processors_are_counted() {
        assert_eq!(list("0-3,7\n"), [0, 1, 2, 3, 7]);
        assert_eq!(list("\n"), [0u16; 0]);
        assert_eq!(list("3-1,x,70000,0-65535").len(), 65_536);
        assert_eq!(nanoseconds("5 6 \n"), [5, 6].map(Duration::from_nanos));
        let (user, system) = usage_all("cpu user system\n0 1 2\n1 3 4 5\nodd\n2 x 1\n");
        assert_eq!(user, [1, 3].map(Duration::from_nanos));
        assert_eq!(system, [2, 4].map(Duration::from_nanos));
    }

    #[test]
    fn rdma_devices_have_use_and_limit() {
        let devices = rdma(
            "mlx4_0 hca_handle=2 hca_object=20\n",
            "mlx4_0 hca_handle=3 hca_object=max\nocrdma1 hca_handle=max hca_object=max\n",
        );
        let first = devices["mlx4_0"];
        assert_eq!((first.handles, first.objects), (2, 20));
        assert_eq!((first.handle_limit, first.object_limit), (Some(3), None));
        assert_eq!(devices["ocrdma1"], RdmaStats::default());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[ -~\n]{0,400}") {
            read_all(&text);
        }
    }
}
