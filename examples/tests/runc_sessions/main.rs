//! `longshore-runc` in the place of runc below the tools that people run: containerd's shim, podman, Docker. Each session is a script that runs
//! twice, once above each runtime; what it prints must be the same.

mod containerd;
mod docker;
mod podman;
mod session;
