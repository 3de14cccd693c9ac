//! A container engine as a library.
#![forbid(unsafe_code)]
