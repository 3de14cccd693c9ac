use std::path::PathBuf;

/// A filesystem mount, as a value: what to mount, not yet where.
///
/// The shape is containerd's `Mount` and fits mount(8): a snapshotter returns a list of them, the executor performs
/// them inside the container's mount namespace. The target is the root being assembled unless
/// [`target`](Self::target) names a directory inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Filesystem type (`overlay`, `bind`, `tmpfs`, ...).
    pub fs_type: String,
    /// Device, directory or name that is mounted.
    pub source: PathBuf,
    /// Directory inside the root being assembled; `None` is the root itself.
    pub target: Option<PathBuf>,
    /// Options as in fstab(5): flags (`ro`, `rbind`) and the filesystem's own (`lowerdir=...`).
    pub options: Vec<String>,
}

impl Mount {
    /// A recursive bind mount of `source`, writable unless `options` says `ro`.
    pub fn bind(source: impl Into<PathBuf>) -> Self {
        Self {
            fs_type: "bind".into(),
            source: source.into(),
            target: None,
            options: vec!["rbind".into()],
        }
    }

    /// The same mount with one more option.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Whether the mount is asked to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }

    /// The value of `key=value` among the options, the last one winning as in mount(8).
    pub fn value_of(&self, key: &str) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find_map(|o| o.strip_prefix(key)?.strip_prefix('='))
    }
}
