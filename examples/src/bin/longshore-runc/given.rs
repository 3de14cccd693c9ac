//! What the caller hands over besides the streams: descriptors that the container's program is to have, by `--preserve-fds` and by systemd's
//! socket activation (sd_listen_fds(3)).

use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};

use anyhow::{Context, bail};
use oci_spec::runtime::Process;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::args::Arguments;

/// The first descriptor that is not a stream.
const FIRST: RawFd = 3;
/// The most that a caller may hand over.
const MOST: RawFd = 1024;

/// How many sockets this program was started with by socket activation. They are meant for the process that `LISTEN_PID` names.
fn activated() -> RawFd {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<RawFd>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == getpid().as_raw_pid() => count.clamp(0, MOST),
        _ => 0,
    }
}

/// The descriptors of socket activation and those of `--preserve-fds`, in this order, as runc passes them on. The program is told of the
/// former by its environment.
pub(crate) fn for_container(arguments: &Arguments, process: &mut Process) -> anyhow::Result<Vec<OwnedFd>> {
    let listening = activated();
    if listening > 0 {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(env));
    }
    let last = FIRST + listening + preserved_count(arguments)?;
    duplicate_all(FIRST..last)
}

/// The descriptors of `--preserve-fds` alone.
pub(crate) fn preserved(arguments: &Arguments) -> anyhow::Result<Vec<OwnedFd>> {
    duplicate_all(FIRST..FIRST + preserved_count(arguments)?)
}

fn preserved_count(arguments: &Arguments) -> anyhow::Result<RawFd> {
    let Some(count) = arguments.filled("preserve-fds") else {
        return Ok(0);
    };
    let number = count.parse().ok().filter(|count| (0..=MOST).contains(count));
    number.with_context(|| format!("--preserve-fds takes a number up to {MOST}, not \"{count}\""))
}

/// A descriptor that a flag names by its number.
pub(crate) fn numbered(number: &str) -> anyhow::Result<OwnedFd> {
    let number: RawFd = number.parse().context("it is not a number")?;
    let given = duplicate_all(number..number.saturating_add(1))?;
    given.into_iter().next().context("it is not a descriptor")
}

/// This program's own descriptors of these numbers. All are looked for before the first is duplicated: duplicates take free numbers.
fn duplicate_all(numbers: Range<RawFd>) -> anyhow::Result<Vec<OwnedFd>> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    for number in numbers.clone() {
        if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!(
                "unable to stat preserved-fd {} (of {}): please check that descriptor {number} is open",
                number - FIRST,
                numbers.len()
            );
        }
    }
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("open the program's own pidfd")?;
    let duplicate = |number| {
        pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).with_context(|| format!("duplicate descriptor {number}"))
    };
    numbers.map(duplicate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Order;

    #[test]
    fn a_descriptor_that_is_not_open_is_told() {
        assert!(duplicate_all(3..3).expect("none").is_empty());
        let told = duplicate_all(1000..1002)
            .expect_err("nothing is open there")
            .to_string();
        assert!(told.contains("preserved-fd 997 (of 2)"), "{told}");
    }

    #[test]
    fn a_count_is_a_small_number() {
        let count = |value: &str| {
            let words = [format!("--preserve-fds={value}"), "id".to_owned()];
            let read = Arguments::read(crate::commands::EXEC_FLAGS, Order::BeforeArguments, words);
            preserved_count(&read.expect("a command line"))
        };
        assert_eq!((count("").expect("none"), count("0").expect("none")), (0, 0));
        assert_eq!(count("7").expect("a number"), 7);
        assert!(count("-1").is_err() && count("x").is_err() && count("4000000").is_err());
    }
}
