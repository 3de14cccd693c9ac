//! Control groups: what a container may use, what it uses, and the handle by which all of it is frozen or killed.
//!
//! v2, v1 and the hybrid of both, driven by file descriptors: every group is found beneath the descriptor of its hierarchy,
//! so that no symbolic link or mount decides where a limit is written.
//!
//! # The order of a start
//! 1. [`Manager::detect`] once; [`Limits::compile`] checks `linux.resources` and turns it into writes, without touching anything.
//! 2. [`Manager::create`] makes the groups and writes the limits, all but the device rules.
//! 3. The child enters with [`Cgroup::entry`]: by `CLONE_INTO_CGROUP` on v2, by writing `0` into the opened `tasks` files on v1. Both
//!    are some microseconds, where moving another process by its pid waits for all CPUs.
//! 4. [`Cgroup::confine_devices`] when the root filesystem is mounted (that may need devices that the container must not have)
//!    and before the container's program runs.
//!
//! # Which groups
//! On v2 there is one. On v1 a group is made in the hierarchies of `devices`, `pids`, `memory`, `cpu`, `cpuacct` and `blkio` (limits
//! that are often set, and the figures of [`Stats`](crate::Stats)), in systemd's (so that a stopped service does not take the container with it), in
//! `freezer` unless there is a v2 tree besides (which freezes and kills better), and in another one (`cpuset`, `hugetlb`, `net_cls`,
//! `net_prio`, `rdma`) only if a limit asks for it, also later: each group costs about 0.1 ms of a container's life. A container that has the
//! hierarchies mounted has a group in all.
//!
//! # Without root
//! Where groups can't be made and no limit is asked for, there is none: [`Cgroup::is_none`]. A limit that can't be set is an error that names its field.
//!
//! # systemd
//! With the feature `systemd`, a [`Driver`] has systemd make the groups: a scope for each container, in the slice that `linux.cgroupsPath`
//! (`slice:prefix:name`) names, with the limits and the annotations `org.systemd.property.*` as its properties.
//!
//! # Limitations
//! All calls block for as long as the kernel takes; in async code they belong on a blocking thread.

mod control;
mod devices;
mod group;
mod host;
mod limits;
mod manager;
mod named;
mod oom;
mod path;
mod stats;
#[cfg(feature = "systemd")]
pub(crate) mod systemd;

#[cfg(feature = "systemd")]
pub(crate) use control::owner;
pub use control::{Cgroup, Entry, SubGroup};
pub use host::{Host, Mode};
pub use limits::Limits;
pub use manager::Manager;
pub(crate) use named::Names;
pub use oom::{OomNews, OomWatch};
pub use path::{Driver, Instance, Location, Place, Unit};
#[cfg(feature = "fuzzing")]
pub(crate) use stats::read_all;
