//! containerd's gRPC API served from a longshore engine.
#![forbid(unsafe_code)]
