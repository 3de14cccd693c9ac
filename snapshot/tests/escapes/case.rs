//! What a case is.

use crate::common::layer::Layer;

/// Ways from a snapshot's root to the canary tree.
pub(crate) struct Ways {
    /// Absolute.
    pub(crate) out: String,
    /// Up from the root of the snapshot.
    pub(crate) up: String,
}

/// A layer and what must come of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What is in the layer below.
    pub(crate) base: Layer,
    pub(crate) layer: fn(&Ways) -> Layer,
    pub(crate) outcome: Outcome,
    /// What the root shows afterwards. `OUT` in a path is the absolute way to the canary tree.
    pub(crate) shows: Vec<Check>,
}

pub(crate) enum Outcome {
    Applied,
    /// With an error about the layer that has this text in it.
    Refused(&'static str),
}

/// Something about files in the root, looked at as a container sees them: links in the middle of a path lead nowhere out of it.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// A file has this content.
    Text(&'static str, &'static str),
    /// Two names are one file.
    Same(&'static str, &'static str),
    /// Two names are two files.
    Apart(&'static str, &'static str),
    /// There is no such name.
    Gone(&'static str),
    /// A symbolic link leads there.
    Leads(&'static str, &'static str),
    /// The mode of a file.
    Mode(&'static str, u32),
}

/// A case that must be applied.
pub(crate) fn applied(name: &'static str, layer: fn(&Ways) -> Layer) -> Case {
    Case {
        name,
        base: Layer::new()
            .dir("bin")
            .entry(tar::EntryType::Regular, b"bin/su", b"", 0o4755, b"program"),
        layer,
        outcome: Outcome::Applied,
        shows: Vec::new(),
    }
}

/// A case that must be refused with an error in which `text` is.
pub(crate) fn refused(name: &'static str, text: &'static str, layer: fn(&Ways) -> Layer) -> Case {
    Case {
        outcome: Outcome::Refused(text),
        ..applied(name, layer)
    }
}

impl Case {
    /// With this in the layer below.
    pub(crate) fn on(mut self, base: Layer) -> Self {
        self.base = base;
        self
    }

    /// With these to be seen afterwards.
    pub(crate) fn shows(mut self, checks: &[Check]) -> Self {
        self.shows = checks.to_vec();
        self
    }
}
