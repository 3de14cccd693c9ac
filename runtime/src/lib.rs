//! The OCI container executor as a library: *compile, then execute*.
//!
//! [`plan`](plan()) compiles a runtime spec into a [`Program`]: every decision is made and every string laid out, in safe code, without touching
//! anything. [`LinuxExecutor`] clones a child that walks the program to its execve: it allocates nothing and takes no lock, so that it works in
//! any program with any number of threads. Nothing of the host is re-executed, and nothing of the host process changes.
//!
//! # What it is not for
//! Images, layers and registries: it takes a bundle. Anything but Linux.
//!
//! # Limitations
//! A field that is not supported is an error that names it, never ignored: a root of its own in a mount namespace that is shared on kernels before 6.15 or with a
//! user namespace, startContainer hooks, time offsets and network devices of ordinary users. The clone copies the host's page tables, so that
//! its time grows with the host's memory. How a detached container ended, and when, its monitor
//! writes down: a process of its own that survives the host program.
//!
//! # Example
//! ```no_run
//! use longshore_runtime::{ContainerId, CreateRequest, DeleteMode, Executor, Io, LinuxExecutor, ProcessId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let executor = LinuxExecutor::open("/run/longshore")?;
//! let id = ContainerId::new("demo")?;
//! let spec = oci_spec::runtime::Spec::load("/bundle/config.json")?;
//! executor.create(CreateRequest::new(id.clone(), "/bundle", spec, Io::inherit())).await?;
//! executor.start(&id).await?;
//! let exit = executor.wait(&id, &ProcessId::Init).await?;
//! executor.delete(&id, DeleteMode::Stopped).await?;
//! println!("it exited with {}", exit.code);
//! # Ok(())
//! # }
//! ```
//!
//! What a start will do, before it does it:
//! ```
//! use longshore_runtime::{HostFacts, PlanOptions, plan};
//!
//! let spec = serde_json::from_str(
//!     r#"{ "ociVersion": "1.2.0", "root": { "path": "rootfs" },
//!          "process": { "args": ["/bin/true"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
//!          "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "user" }],
//!                     "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
//!                     "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }] } }"#,
//! )?;
//! let program = plan(&spec, &HostFacts::gather()?, &PlanOptions::new("/bundle"))?;
//! assert!(program.to_string().contains("pivot root"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

mod attach;
mod checkpoint;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod executor;
mod features;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host;
mod id;
mod init;
mod io;
mod local;
mod logs;
mod plan;
mod resctrl;
mod stats;

pub mod cgroup;
pub mod seccomp;

pub use attach::{Attachment, Shown};
pub use checkpoint::{CheckpointKind, CheckpointRequest, CriuCgroups, CriuFlags, CriuOptions, RestoreRequest};
pub use error::{Error, ErrorKind, Result};
pub use executor::{
    CreateRequest, DeleteMode, ExecRequest, Executor, ExitStatus, Keyring, KillScope, Lifetime, ProcessId, Reaper,
    State, Status, WhenPaused,
};
pub use features::{SPEC_VERSION_MAX, SPEC_VERSION_MIN, features};
pub use id::ContainerId;
pub use io::{Drained, Input, Io, OutputGuard, PipeEnds, Stdio, Streams, Terminal};
pub use local::LinuxExecutor;
#[cfg(feature = "journald")]
pub use logs::JournalLog;
pub use logs::{LogFile, LogFormat, LogReader, LogRecord, OutputStream};
pub use plan::{HostFacts, PlanOptions, Privilege, Program, RootEntry, plan};
pub use stats::{
    CpuStats, CpusetStats, HugetlbStats, IoEntry, IoStats, IoTables, MemoryStats, MemoryUse, MiscStats, NetworkStats,
    PidsStats, Pressure, PressureLine, RdmaStats, Stats,
};
