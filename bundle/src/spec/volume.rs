//! Mounts that a person asks for: `-v source:destination[:options]` and `--tmpfs destination[:options]`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{Mount, MountBuilder};

use crate::path::clean;
use crate::{Error, Result};

/// Options of a bind mount besides `ro` and `rw`; each is one of mount(8), or of its recursive relatives of the
/// runtime spec.
const BIND_OPTIONS: [&str; 22] = [
    "bind",
    "rbind",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "relatime",
    "rro",
    "rnosuid",
    "rnodev",
];
const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];
/// What Docker gives a tmpfs unless told otherwise.
const TMPFS_DEFAULTS: [&str; 3] = ["noexec", "nosuid", "nodev"];

/// A directory or file of the host, mounted in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    source: PathBuf,
    destination: PathBuf,
    options: Vec<String>,
}

impl Bind {
    /// Mounts `source` of the host at `destination` of the container, writable, with everything mounted below it, and
    /// cut off from later mounts on either side.
    pub fn new(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            options: Vec::new(),
        }
    }

    /// The same, not to be written to. As mount(2) has it, what is mounted below the source stays writable; option
    /// `rro` closes that too.
    pub fn read_only(self) -> Self {
        self.option("ro")
    }

    /// The same with one more option of mount(8).
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }
}

impl FromStr for Bind {
    type Err = Error;

    /// `source:destination[:option,...]`, as `docker run -v`. The source is a path: there are no named volumes here.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::option("volume", text, reason));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts.as_slice() {
            [source, destination] => (*source, *destination, ""),
            [source, destination, options] => (*source, *destination, *options),
            _ => return refuse("it is written source:destination[:options]"),
        };
        if !source.starts_with('/') {
            return refuse("the source must be an absolute path of the host (named volumes are not supported)");
        }
        let mut bind = Self::new(source, destination);
        bind.options = options
            .split(',')
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect();
        bind.to_mount().map(|_| bind)
    }
}

/// A new, empty filesystem in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    destination: PathBuf,
    options: Vec<String>,
}

impl Tmpfs {
    /// A tmpfs at `destination`, from which nothing can be executed, without devices and set-user-ID programs.
    pub fn new(destination: impl Into<PathBuf>) -> Self {
        Self {
            destination: destination.into(),
            options: Vec::new(),
        }
    }

    /// The same with at most so many bytes. Without a limit, the kernel's is half of the memory.
    pub fn size(self, bytes: u64) -> Self {
        self.option(format!("size={bytes}"))
    }

    /// The same with one more option of tmpfs(5) or mount(8); `exec`, `suid` and `dev` take back a default.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }
}

impl FromStr for Tmpfs {
    type Err = Error;

    /// `destination[:option,...]`, as `docker run --tmpfs`.
    fn from_str(text: &str) -> Result<Self> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Self::new(destination);
        tmpfs.options = options
            .split(',')
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect();
        tmpfs.to_mount().map(|_| tmpfs)
    }
}

/// Something that makes a mount of the runtime spec.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Bind(Bind),
    Tmpfs(Tmpfs),
    Spec(Box<Mount>),
}

impl Wanted {
    pub(super) fn to_mount(&self) -> Result<Mount> {
        match self {
            Self::Bind(bind) => bind.to_mount(),
            Self::Tmpfs(tmpfs) => tmpfs.to_mount(),
            Self::Spec(mount) => {
                let mut mount = Mount::clone(mount);
                mount.set_destination(destination(mount.destination())?);
                Ok(mount)
            }
        }
    }
}

impl Bind {
    fn to_mount(&self) -> Result<Mount> {
        for option in &self.options {
            if !BIND_OPTIONS.contains(&option.as_str()) && !matches!(option.as_str(), "ro" | "rw") {
                return Err(unknown_option("bind mount", option));
            }
        }
        let has = |wanted: &[&str]| self.options.iter().any(|o| wanted.contains(&o.as_str()));
        if has(&["ro", "rro"]) && has(&["rw"]) {
            return Err(Error::option(
                "bind mount option",
                self.options.join(","),
                "it can't be both ro and rw",
            ));
        }
        let mut options = self.options.clone();
        if !has(&["bind", "rbind"]) {
            options.insert(0, "rbind".into());
        }
        if !has(&PROPAGATION) {
            options.insert(1, "rprivate".into());
        }
        let source = clean("bind mount source", &self.source)?;
        Ok(mount(destination(&self.destination)?, "bind", source, options))
    }
}

impl Tmpfs {
    fn to_mount(&self) -> Result<Mount> {
        let mut options: Vec<String> = TMPFS_DEFAULTS
            .iter()
            .filter(|default| !self.options.iter().any(|o| default.strip_prefix("no") == Some(o)))
            .map(|default| (*default).to_owned())
            .collect();
        for option in &self.options {
            let name = option.split('=').next().unwrap_or_default();
            let valued = matches!(
                name,
                "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol" | "huge"
            );
            let flag = matches!(
                name,
                "ro" | "rw"
                    | "exec"
                    | "noexec"
                    | "suid"
                    | "nosuid"
                    | "dev"
                    | "nodev"
                    | "noatime"
                    | "relatime"
                    | "noswap"
            );
            if !(valued && option.contains('=') || flag && !option.contains('=')) {
                return Err(unknown_option("tmpfs", option));
            }
            if !options.contains(option) {
                options.push(option.clone());
            }
        }
        Ok(mount(destination(&self.destination)?, "tmpfs", "tmpfs", options))
    }
}

fn unknown_option(what: &'static str, option: &str) -> Error {
    let what = if what == "tmpfs" {
        "tmpfs option"
    } else {
        "bind mount option"
    };
    Error::option(what, option, "it is not known, or has no use here; see mount(8)")
}

fn destination(path: &Path) -> Result<PathBuf> {
    let path = clean("mount destination", path)?;
    if path == Path::new("/") {
        return Err(Error::option(
            "mount destination",
            "/",
            "the root filesystem can't be hidden by a mount",
        ));
    }
    Ok(path)
}

pub(super) fn mount(
    destination: impl Into<PathBuf>,
    fs_type: &str,
    source: impl Into<PathBuf>,
    options: Vec<String>,
) -> Mount {
    MountBuilder::default()
        .destination(destination)
        .typ(fs_type)
        .source(source)
        .options(options)
        .build()
        .expect("every field has a default")
}
