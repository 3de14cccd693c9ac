//! Images in one file: what `docker save`, `podman save` and `skopeo copy ... docker-archive:` or `oci-archive:` write, and `docker load` and the others read.

mod docker;
mod load;
mod read;
mod save;

pub use load::{LoadedImage, load_archive};
pub use save::{SavedImage, save_archive};

use crate::Error;
use crate::manifest::Origin;

/// Where errors say that bytes came from.
const ARCHIVE: &str = "the archive";

/// The annotation by which containerd and Docker name an image in an archive's index.
const IMAGE_NAME: &str = "io.containerd.image.name";

fn protocol(what: &str, reason: impl Into<String>) -> Error {
    Origin {
        registry: ARCHIVE,
        what,
    }
    .protocol(reason)
}

fn broken(doing: &'static str, source: std::io::Error) -> Error {
    Error::Archive { doing, source }
}
