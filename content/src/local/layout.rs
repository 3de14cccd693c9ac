//! Where things are on disk: an OCI image layout, with ingests beside the blobs.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use crate::error::IoContext;
use crate::hash::{Hasher, sha256};
use crate::{Error, Result};

const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY_INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// The paths of a store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Opens the layout at `root`, completing what is missing of it.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layout = Self {
            root: root.to_path_buf(),
        };
        make_directory(&layout.root)?;
        make_directory(&layout.ingests())?;
        make_directory(&layout.root.join("blobs").join("sha256"))?;
        create_file(&layout.root.join("oci-layout"), OCI_LAYOUT)?;
        create_file(&layout.root.join("index.json"), EMPTY_INDEX)?;
        layout.check_version()?;
        sync_directory(&layout.root)?;
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a blob. Only digests that this crate computes have one: their text is hex of a known length.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<PathBuf> {
        Hasher::new(digest.algorithm())?;
        Ok(self.blobs(digest).join(digest.digest()))
    }

    /// The directory that holds a blob.
    pub(crate) fn blobs(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_ref())
    }

    /// The directory of all ingests.
    pub(crate) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// The directory of one ingest. The reference is anybody's text, so only its hash becomes a path.
    pub(crate) fn ingest(&self, reference: &str) -> PathBuf {
        self.ingests().join(sha256(reference.as_bytes()).digest())
    }

    fn check_version(&self) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct OciLayout {
            #[serde(rename = "imageLayoutVersion")]
            version: String,
        }
        let path = self.root.join("oci-layout");
        let text = fs::read(&path).during("reading", &path)?;
        match serde_json::from_slice::<OciLayout>(&text) {
            Ok(layout) if layout.version.starts_with("1.") => Ok(()),
            Ok(layout) => Err(Error::Corrupt {
                path,
                reason: format!("image layout version {} is not one that we know (1.x)", layout.version),
            }),
            Err(error) => Err(Error::Corrupt {
                path,
                reason: format!("not an OCI layout file: {error}"),
            }),
        }
    }
}

/// Makes a directory and its parents; it may be there.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .during("creating", path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .during("syncing", path)
}

/// Creates a file whole, or leaves the one that is there.
fn create_file(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    if let Err(error) = write_file(&temporary, text.as_bytes(), Sync::Now) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // A link, not a rename: whoever was faster stays.
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error).during("creating", path),
        _ => Ok(()),
    }
}

/// When bytes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before the call returns.
    Now,
    /// When the kernel likes.
    Later,
}

/// Puts a small file in place of another, at once.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], sync: Sync) -> Result<()> {
    let temporary = path.with_extension("tmp");
    write_file(&temporary, bytes, sync)?;
    fs::rename(&temporary, path).during("renaming", temporary)
}

fn write_file(path: &Path, bytes: &[u8], sync: Sync) -> Result<()> {
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(path)?;
        file.write_all(bytes)?;
        if sync == Sync::Now { file.sync_data() } else { Ok(()) }
    };
    write().during("writing", path)
}
