//! Benchmarks, each against a floor (what the bare system calls or the bare hash would take) and quoted as a ratio in one run: `cargo bench -p longshore-benches`.
#![forbid(unsafe_code)]
