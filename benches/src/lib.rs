//! Benchmarks of longshore against a floor and against its peers.
#![forbid(unsafe_code)]
