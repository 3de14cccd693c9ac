//! The place of containerd's gRPC API over a [`longshore::Engine`]: it is not written yet, and this crate has no items.
#![forbid(unsafe_code)]
