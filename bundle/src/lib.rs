//! From an OCI image to a runnable bundle: unpacking layers, building the runtime specification.
//!
//! - [`Unpacker`] applies an image's layers on top of each other, each a snapshot of its own, while they are still
//!   being fetched.
//! - [`SpecBuilder`] makes the runtime spec of a container out of an image's config and the caller's options:
//!   Docker's mounts, capabilities, masked paths and system calls, but no way to gain privileges.
//! - [`Cdi`] finds devices by their CDI names, with all that a container needs to use them.
//! - [`MountsView`] reads `/etc/passwd` and `/etc/group` of a root filesystem that is not mounted and not trusted.
//! - [`Bundle`] writes and reads `config.json`; [`from_json`] reads other JSON and names the field that is wrong.
//!
//! # Example
//! A container's bundle, from a root filesystem that is there:
//!
//! ```
//! use longshore_bundle::{Bundle, MountsView, SpecBuilder};
//! use longshore_linux::Mount;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = tempfile::tempdir()?;
//! # std::fs::create_dir(root.path().join("etc"))?;
//! # std::fs::write(root.path().join("etc/passwd"), "web:x:33:33::/srv:/bin/sh\n")?;
//! # let rootfs = root.path();
//! # let directory = root.path().join("bundle");
//! let files = MountsView::new(&[Mount::bind(rootfs)])?;
//! let spec = SpecBuilder::without_image().args(["httpd", "-f"]).user("web").memory(64 << 20).build(&files)?;
//! let bundle = Bundle::create(directory, &spec)?;
//!
//! let read = Bundle::load(bundle.directory())?;
//! assert_eq!(read.spec().process().as_ref().map(|process| process.user().uid()), Some(33));
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not for
//! It does not fetch (that is `longshore-distribution`), it runs nothing (that is `longshore-runtime`), and it mounts
//! nothing. It looks at no host but where a function says so ([`Cdi`], [`host_devices`], [`available_capabilities`],
//! [`thermal_paths`]).
//!
//! # Where it differs from Docker
//! - Privileges can't be raised ([`NewPrivileges::Deny`]) unless told otherwise.
//! - An image's `Volumes` are ordinary directories of the container's snapshot ([`ImageVolumes`]).
//! - Memory that is limited does not limit swap ([`SpecBuilder::memory_swap`]).
//! - `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` are left as they are; whoever makes the network mounts them.
//! - `HOME` is in the spec, from `/etc/passwd`, and not left to the executor. Lines of that file that are not whole are
//!   nobody, where Docker reads missing numbers as 0.
//!
//! # Limitations
//! - Linux only, and only images of tar layers.
//! - The layers of one image are unpacked one after the other: overlay and native snapshots are made on top of a
//!   committed parent.
//! - [`MountsView`] knows bind mounts and overlays.
//! - CDI specifications in YAML are not read, but told of.

#![forbid(unsafe_code)]

mod bundle;
mod canonical;
mod capability;
mod cdi;
mod chain;
mod error;
mod json;
mod path;
mod rootfs;
mod seccomp;
mod signal;
mod spec;
mod unpack;
mod user;

pub use bundle::{Bundle, CONFIG_LIMIT, parse_spec};
pub use canonical::canonical_json;
pub use capability::{CapabilityName, DEFAULT_CAPABILITIES, all_capabilities, available_capabilities};
pub use cdi::{Cdi, CdiEdits, CdiName};
pub use chain::{chain_ids, diff_ids};
pub use error::{Error, ErrorKind, Result};
pub use json::{InvalidJson, from_json};
pub use rootfs::{MountsView, NoFiles, RootFiles};
pub use seccomp::{default_profile, native_arch};
pub use signal::{DEFAULT_STOP_SIGNAL, signal_number, stop_signal};
pub use spec::{
    Bind, CgroupAccess, CgroupVersion, Device, ExecSpec, HookPoint, IdMappings, ImageAnnotations, ImageVolumes,
    Namespace, NewPrivileges, RootAccess, Rootless, SPEC_VERSION, Seccomp, SpecBuilder, SwapLimit, Terminal, Tmpfs,
    default_masked_paths, default_readonly_paths, host_devices, runc_rootless_spec, runc_spec, thermal_paths,
};
pub use unpack::{LayerProgress, LayerState, MissingLayers, UnpackObserver, UnpackOptions, Unpacked, Unpacker};
pub use user::{ResolvedUser, UserSpec, resolve_group};
