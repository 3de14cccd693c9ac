use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::{Error, Result, canonical, from_json};

const CONFIG: &str = "config.json";
/// A `config.json` that is longer is refused, in bytes. Docker's have about 20 KiB.
pub const CONFIG_LIMIT: u64 = 16 << 20;

/// A directory with a `config.json`, which is what an executor runs (runtime spec, "Filesystem Bundle").
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    directory: PathBuf,
    spec: Spec,
}

impl Bundle {
    /// Writes a bundle: `directory` (mode 0711, made if it is missing), its `config.json`, and the directory that
    /// `root.path` names if that lies inside.
    ///
    /// `config.json` is [canonical](crate::canonical_json), readable by its owner alone (the environment may hold
    /// secrets), and there whole or not at all: after a crash it is the old one or the new one. Blocks on disk.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn create(directory: impl Into<PathBuf>, spec: &Spec) -> Result<Self> {
        let directory = directory.into();
        let made = DirBuilder::new().recursive(true).mode(0o711).create(&directory);
        made.map_err(Error::io("making", &directory))?;
        if let Some(root) = root_inside(spec) {
            let root = directory.join(root);
            fs::create_dir_all(&root).map_err(Error::io("making", &root))?;
        }
        let bundle = Self {
            directory,
            spec: spec.clone(),
        };
        bundle.write()?;
        Ok(bundle)
    }

    /// Reads a bundle. Unknown fields are ignored, as the runtime spec asks; a value that is not what its field takes
    /// is not. Blocks on disk.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with the line and the field (`linux.seccomp.defaultAction: unknown
    /// variant ...`), or for a file of more than [`CONFIG_LIMIT`] bytes; what reading fails with.
    pub fn load(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let path = directory.join(CONFIG);
        let spec = parse(&path, &read(&path)?)?;
        Ok(Self { directory, spec })
    }

    /// Replaces the spec, durably.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn replace(&mut self, spec: Spec) -> Result<()> {
        let old = std::mem::replace(&mut self.spec, spec);
        self.write().inspect_err(|_| self.spec = old)
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The spec alone.
    pub fn into_spec(self) -> Spec {
        self.spec
    }

    fn write(&self) -> Result<()> {
        let json = canonical::canonical_json(&self.spec)?;
        let path = self.directory.join(CONFIG);
        let temporary = self.directory.join(format!(".{CONFIG}.{}", std::process::id()));
        let result = write_durably(&temporary, &json)
            .and_then(|()| fs::rename(&temporary, &path).map_err(Error::io("renaming to", &path)));
        if result.is_err() {
            // What can't be removed now is overwritten by the next try.
            let _ = fs::remove_file(&temporary);
        }
        result?;
        let directory = File::open(&self.directory).map_err(Error::io("opening", &self.directory))?;
        directory.sync_all().map_err(Error::io("syncing", &self.directory))
    }
}

/// Parses a spec that came from `path`, which is only for the message.
///
/// # Errors
/// As [`Bundle::load`].
pub fn parse_spec(path: impl AsRef<Path>, json: &[u8]) -> Result<Spec> {
    parse(path.as_ref(), json)
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .clone();
    let mut file = options.open(path).map_err(Error::io("creating", path))?;
    file.write_all(bytes).map_err(Error::io("writing", path))?;
    file.sync_all().map_err(Error::io("syncing", path))
}

/// The root directory, if it is relative to the bundle and stays in it.
fn root_inside(spec: &Spec) -> Option<&Path> {
    let path = spec.root().as_ref()?.path();
    let inside = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    (inside && path.components().next().is_some()).then_some(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // O_NONBLOCK: a pipe in its place is told apart, not waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(Error::io("opening", path))?;
    let refuse = |reason: String| Error::NotAConfig {
        path: path.to_owned(),
        reason,
    };
    let metadata = file.metadata().map_err(Error::io("looking at", path))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    // One more than there is, so that the end is seen without another read into a larger buffer.
    let mut bytes = Vec::with_capacity(metadata.len().min(CONFIG_LIMIT) as usize + 1);
    file.take(CONFIG_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("reading", path))?;
    if bytes.len() as u64 > CONFIG_LIMIT {
        return Err(refuse(format!("it is longer than {CONFIG_LIMIT} bytes")));
    }
    Ok(bytes)
}

fn parse(path: &Path, json: &[u8]) -> Result<Spec> {
    // serde would take a list for the fields in order.
    if json.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Error::NotAConfig {
            path: path.to_owned(),
            reason: "it is a list, not an object".to_owned(),
        });
    }
    from_json(json).map_err(|invalid| Error::InvalidConfig {
        path: path.to_owned(),
        field: invalid.field,
        line: invalid.line,
        column: invalid.column,
        reason: invalid.reason,
    })
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
