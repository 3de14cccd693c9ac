//! Safe wrappers for what a container engine asks of Linux and neither `nix` nor `rustix` offers, and the
//! [`Mount`] value that the other crates hand to each other.

#![forbid(unsafe_op_in_unsafe_fn)]

mod bpf;
mod mount;

pub use bpf::SockFilter;
pub use mount::Mount;
