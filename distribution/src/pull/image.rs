use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

/// An image whose root, manifest and configuration are known, proved and in the store. Its layers may be on their way.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedImage {
    /// The name that was pulled.
    pub reference: Reference,
    /// What the name stands for: an index, or the manifest itself. This is what to register.
    pub target: Descriptor,
    /// The manifest of the platform that was chosen.
    pub manifest_descriptor: Descriptor,
    /// That manifest, parsed. Its bytes are in the store as they were received.
    pub manifest: ImageManifest,
    /// The image's configuration, parsed. Its bytes are in the store as they were received.
    pub config: ImageConfiguration,
    /// The indexes between target and manifest, if the target is an index of indexes.
    pub(super) between: Vec<Descriptor>,
}

impl ResolvedImage {
    /// The configuration's descriptor.
    pub fn config_descriptor(&self) -> &Descriptor {
        self.manifest.config()
    }

    /// The layers, the lowest first. One may come twice.
    pub fn layers(&self) -> &[Descriptor] {
        self.manifest.layers()
    }

    /// Every blob that the image consists of, each once, the target first.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut all: Vec<&Descriptor> = Vec::new();
        let parts = std::iter::once(&self.target)
            .chain(&self.between)
            .chain([&self.manifest_descriptor, self.config_descriptor()])
            .chain(self.layers());
        for blob in parts {
            if !all.iter().any(|known| known.digest() == blob.digest()) {
                all.push(blob);
            }
        }
        all
    }
}
