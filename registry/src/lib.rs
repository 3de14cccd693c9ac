//! An OCI distribution registry in process, over any content store: for tests, demonstrations and air-gapped use.
#![forbid(unsafe_code)]
