//! Checkpoint and restore, done by CRIU: a program of its own, asked over a socket (`criu swrk`).
//!
//! What is asked is decided without it: `message` lays the request out, and its tests need no CRIU.

mod message;
mod options;
mod service;
mod wire;

pub(crate) use message::{Kind, Options, Response, request};
pub use options::{CheckpointKind, CheckpointRequest, CriuCgroups, CriuFlags, CriuOptions, RestoreRequest};
pub(crate) use service::Service;
