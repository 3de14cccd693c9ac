//! The OCI container executor as a library: *compile, then execute*.

#![deny(unsafe_code)]

mod error;
mod executor;
mod host;
mod id;
mod init;
mod io;
mod local;
mod plan;
mod stats;

pub mod cgroup;
pub mod seccomp;

pub use error::{Error, ErrorKind, Result};
pub use executor::{
    CreateRequest, DeleteMode, ExecRequest, Executor, ExitStatus, KillScope, Lifetime, ProcessId, State, Status,
};
pub use id::ContainerId;
pub use io::{Drained, Io, OutputGuard, PipeEnds, Stdio, Streams, Terminal};
pub use local::LinuxExecutor;
pub use plan::{HostFacts, PlanOptions, Privilege, Program, plan};
pub use stats::{CpuStats, IoStats, MemoryStats, PidsStats, Pressure, PressureLine, Stats};
