//! What a container uses: what its groups count, and its network devices; and word of its want of memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use longshore_linux::has_ended;

use super::container::Container;
use super::{LinuxExecutor, Shared};
use crate::cgroup::OomWatch;
use crate::host::io_error;
use crate::{ContainerId, NetworkStats, Result, Stats};

/// A container may make as many devices as it likes; of what the kernel tells of them no more is read.
const MOST: u64 = 256 << 10;

impl Container {
    /// What it uses.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let mut stats = self.cgroup().stats()?;
        stats.network = self.network(namespace("self"));
        Ok(stats)
    }

    /// Its network devices, but for the loopback. None when it has ended, or has the network namespace of this program, whose traffic is not the container's.
    fn network(&self, host: Option<Namespace>) -> BTreeMap<String, NetworkStats> {
        let (pid, Some(pidfd)) = (self.init.pid, &self.init.pidfd) else {
            return BTreeMap::new();
        };
        let own = namespace(&pid.to_string());
        if own.is_none() || host.is_none() || own == host {
            return BTreeMap::new();
        }
        let mut text = Vec::with_capacity(1 << 10);
        let read = File::open(format!("/proc/{pid}/net/dev")).and_then(|file| file.take(MOST).read_to_end(&mut text));
        // The pid may have become another's meanwhile.
        match read {
            Ok(_) if !has_ended(pidfd) => devices(&String::from_utf8_lossy(&text)),
            _ => BTreeMap::new(),
        }
    }
}

/// A network namespace: its device and inode number.
type Namespace = (u64, u64);

fn namespace(of: &str) -> Option<Namespace> {
    let file = std::fs::metadata(format!("/proc/{of}/ns/net")).ok()?;
    Some((file.dev(), file.ino()))
}

/// What each of several containers uses, in brief. Blocks.
pub(super) fn sample(shared: &Shared, ids: &[ContainerId]) -> Vec<Result<Stats>> {
    let host = namespace("self");
    let one = |id: &ContainerId| {
        let container = shared.find(id)?;
        let mut stats = container.cgroup().brief_stats()?;
        stats.network = container.network(host);
        Ok(stats)
    };
    ids.iter().map(one).collect()
}

impl LinuxExecutor {
    /// Watches for a container's running out of memory, from now on, and for its end.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); as [`Cgroup::watch_oom`](crate::cgroup::Cgroup::watch_oom).
    pub fn watch_oom(&self, id: &ContainerId) -> Result<OomWatch> {
        let container = self.shared.find(id)?;
        let init = container.init.pidfd.as_ref().map(|fd| fd.try_clone()).transpose();
        container
            .cgroup()
            .watch_oom(init.map_err(io_error("duplicate a pidfd"))?)
    }
}

/// `/proc/PID/net/dev` (proc_pid_net(5)): two head lines, then `name: received... sent...`, eight numbers each.
pub(crate) fn devices(text: &str) -> BTreeMap<String, NetworkStats> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers = numbers.split_ascii_whitespace().map_while(|word| word.parse().ok());
        let [
            rx,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers.collect::<Vec<u64>>()[..]
        else {
            return None;
        };
        let stats = NetworkStats {
            rx_bytes: rx,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes: tx,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), stats))
    };
    let devices = text.lines().skip(2).filter_map(line);
    devices.filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_the_kernel_writes_them() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:    9000      90    0    0    0     0          0         0     9000      90    0    0    0     0       0          0\n  \
            eth0: 1234567    1000    1    2    0     0          0         0   654321     900    3    4    0     0       0          0\n\
            veth12345678901: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0\n";
        let found = devices(text);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["eth0", "veth12345678901"], "all but the loopback");
        let eth0 = found["eth0"];
        assert_eq!(
            (eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped),
            (1_234_567, 1000, 1, 2)
        );
        assert_eq!(
            (eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped),
            (654_321, 900, 3, 4)
        );
    }

    #[test]
    fn what_is_no_device_is_passed_over() {
        for text in [
            "",
            "a\nb\n",
            "a\nb\neth0: 1 2 3\n",
            "a\nb\neth0 1\n",
            "a\nb\neth0: x 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        ] {
            assert!(devices(text).is_empty(), "{text:?}");
        }
    }
}
