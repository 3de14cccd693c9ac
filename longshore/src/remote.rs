//! What a snapshotter that has layers elsewhere is told of an image.

use std::collections::{HashMap, HashSet};

use longshore_bundle::{chain_ids, diff_ids};
use longshore_content::ErrorKind;
use longshore_distribution::ResolvedImage;
use longshore_snapshot::{Kind, Reach};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};

use crate::Engine;

/// containerd's labels, by which its remote snapshotters (stargz, nydus, SOCI and others) find a layer.
const IMAGE: &str = "containerd.io/snapshot/cri.image-ref";
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";
const LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
const LAYERS: &str = "containerd.io/snapshot/cri.image-layers";
/// A label's key and value are no longer than this together, in containerd.
const MAX_LABEL: usize = 4096;

/// The manifest with annotations for a snapshotter that looks for layers elsewhere, which the unpacker makes labels of: the image, its manifest, the layer, and it with those above it.
pub(crate) fn labelled(image: &ResolvedImage, reach: Reach) -> ImageManifest {
    let mut manifest = image.manifest.clone();
    if reach == Reach::Local {
        return manifest;
    }
    let mut layers = manifest.layers().clone();
    let digests: Vec<String> = layers.iter().map(|layer| layer.digest().to_string()).collect();
    for (index, layer) in layers.iter_mut().enumerate() {
        let mut annotations: HashMap<String, String> = layer.annotations().clone().unwrap_or_default();
        for (label, value) in [
            (IMAGE, image.reference.whole()),
            (MANIFEST, image.manifest_descriptor.digest().to_string()),
            (LAYER, digests[index].clone()),
            (LAYERS, fitting(&digests[index..])),
        ] {
            annotations.insert(label.to_owned(), value);
        }
        layer.set_annotations(Some(annotations));
    }
    manifest.set_layers(layers);
    manifest
}

/// As many as a label has room for.
fn fitting(digests: &[String]) -> String {
    let mut value = String::new();
    for digest in digests {
        if LAYERS.len() + value.len() + 1 + digest.len() > MAX_LABEL {
            break;
        }
        if !value.is_empty() {
            value.push(',');
        }
        value.push_str(digest);
    }
    value
}

impl Engine {
    /// The layers that are with the snapshotter and not in the content store, which they need not be.
    pub(crate) async fn with_the_snapshotter(
        &self,
        layers: &[Descriptor],
        config: &ImageConfiguration,
    ) -> HashSet<Digest> {
        let mut found = HashSet::new();
        let Ok(diff_ids) = diff_ids(config) else {
            return found;
        };
        if self.snapshotter.reach() == Reach::Local || diff_ids.len() != layers.len() {
            return found;
        }
        for (layer, chain_id) in layers.iter().zip(chain_ids(&diff_ids)) {
            let missing = self.content.info(layer.digest()).await;
            let snapshot = self.snapshotter.stat(&chain_id).await;
            if missing.is_err_and(|error| error.kind() == ErrorKind::NotFound)
                && snapshot.is_ok_and(|snapshot| snapshot.kind == Kind::Committed)
            {
                found.insert(layer.digest().clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_layers_has_room_in_a_label() {
        let digest = |n: usize| format!("sha256:{n:064}");
        let all: Vec<String> = (0..500).map(digest).collect();
        assert_eq!(fitting(&all[..2]), format!("{},{}", digest(0), digest(1)));
        let value = fitting(&all);
        assert!(LAYERS.len() + value.len() <= MAX_LABEL);
        assert!(value.ends_with(&digest(55)), "{value}");
    }
}
