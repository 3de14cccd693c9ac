//! The main job, from end to end, in one process.
fn main() {}
