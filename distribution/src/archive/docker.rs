//! `manifest.json`, Docker's own list of an archive's images.

use serde::{Deserialize, Serialize};

use super::protocol;
use crate::Result;

pub(super) const NAME: &str = "manifest.json";
/// More images than these in one archive are refused.
const MAX_IMAGES: usize = 4096;

/// One image: paths inside the archive.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Image {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Image>> {
    let images: Vec<Image> =
        serde_json::from_slice(bytes).map_err(|error| protocol(NAME, format!("it can't be read ({error})")))?;
    match images.len() {
        n if n > MAX_IMAGES => Err(protocol(
            NAME,
            format!("it has {n} images, at most {MAX_IMAGES} are accepted"),
        )),
        _ => Ok(images),
    }
}
