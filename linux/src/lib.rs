//! Safe wrappers for what a container engine asks of Linux and neither `nix` nor `rustix` offers, and the
//! [`Mount`] value that the other crates hand to each other.
//!
//! Calls that say *async-signal-safe* allocate nothing and take no lock: they may be used between clone and execve in the
//! child of a program with threads. Not for anything that nix or rustix has already.
//!
//! ```
//! use longshore_linux::Mount;
//!
//! let mount = Mount::bind("/srv/data").option("ro");
//! assert!(mount.is_read_only());
//! ```

#![deny(unsafe_op_in_unsafe_fn)]

mod bpf;
mod clone;
mod executable;
mod keyring;
mod links;
mod memory;
mod mount;
mod mount_attr;
mod netlink;
mod pidfd;
mod process;
mod procfs;
mod raw;
mod sched;
mod signal;

pub use bpf::{
    EbpfInstruction, SockFilter, attach_device_program, detach_device_program, device_programs, load_device_program,
};
pub use clone::{ChildOf, CloneOptions, Cloned, Namespaces, clone3};
pub use executable::{Copies, SealedExecutable};
pub use keyring::join_session_keyring;
pub use links::{LinkAddress, LinkSocket};
pub use memory::{Essentials, let_go_of_contents, let_go_of_stack_below};
pub use mount::Mount;
pub use mount_attr::{AttrChange, Depth, MountAttr, Propagation, map_mount_ids, mount_setattr};
pub use pidfd::{Exit, has_ended, reap, send_signal};
pub use process::{
    CStringArray, CapabilitySets, capabilities, close_on_exec_from, close_range, drop_bounding_capability,
    duplicate_onto, execve, execve_replacing_last, exit_now, knows_seccomp_flags, load_seccomp_filter, may_execute,
    realtime, set_ambient_capabilities, set_capabilities, set_controlling_terminal, set_group, set_groups,
    set_namespace, set_parent_death_signal, set_rlimit, set_user, unshare, verify_cwd_inside_root,
};
pub use procfs::read_procfs;
pub use rustix::io::Errno;
pub use sched::{SchedAttr, set_cpu_affinity, set_io_priority, set_memory_policy, set_personality, set_scheduler};
pub use signal::{SignalMask, next_signal, reset_signal_handlers, set_signal_mask, signal_descriptor};
