//! The files of a journal, each named after the sequence number of its first entry.

use std::path::{Path, PathBuf};

use super::error::{Result, io};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn new(directory: &Path, first: u64) -> Self {
        Self {
            first,
            path: directory.join(format!("events-{first:020}.log")),
        }
    }
}

/// All of them, the oldest first. Files of other names are none of ours.
pub(super) fn list(directory: &Path) -> Result<Vec<Segment>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io("listing", directory))?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let name = entry.map_err(io("listing", directory))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("events-")?.strip_suffix(".log"));
        let digits = number.filter(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment::new(directory, first));
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}
