//! Network namespaces, links, addresses and routes for containers.
#![forbid(unsafe_code)]
