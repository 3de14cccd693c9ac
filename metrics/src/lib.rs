//! Prometheus metrics of a container engine and of each of its containers.
#![forbid(unsafe_code)]
