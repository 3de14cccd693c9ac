//! From an OCI image to a runnable bundle: unpacking layers, building the runtime specification.
#![forbid(unsafe_code)]
