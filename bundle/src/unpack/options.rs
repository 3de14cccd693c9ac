use longshore_snapshot::{Labels, Limits, Ownership};

/// What to do about a layer that is neither in the content store nor on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingLayers {
    /// Fail.
    #[default]
    Fail,
    /// Wait until it comes, and start a layer again whose fetching was given up. For unpacking side by side with a
    /// pull: whoever does that drops the unpacking when the pull fails.
    Wait,
}

/// How images are unpacked.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// Layers that are not there.
    pub missing: MissingLayers,
    /// Whose the files are.
    pub ownership: Ownership,
    /// What a layer may ask for.
    pub limits: Limits,
    /// Labels of every snapshot that is made, besides `containerd.io/snapshot.ref`, which is its chainID.
    pub labels: Labels,
}

impl UnpackOptions {
    /// The same, with layers waited for.
    #[must_use]
    pub fn wait_for_layers(mut self) -> Self {
        self.missing = MissingLayers::Wait;
        self
    }

    /// The same with another ownership.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}
