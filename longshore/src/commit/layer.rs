use longshore_snapshot::{Compression, Compressor, DiffOptions, Diffed, diff_snapshot};
use oci_spec::image::Digest;

use super::CommitBuilder;
use crate::Result;
use crate::create::blocking;
use crate::error::At;
use crate::image::{Holder, unique};
use crate::pieces::{self, Pieces};

/// A layer that is in the content store.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
    pub(super) compression: Compression,
}

impl CommitBuilder {
    /// Writes what the container changed to the content store, compressed.
    pub(super) async fn write_layer(&self, holder: &Holder) -> Result<Layer> {
        let engine = &self.container.engine;
        let content = engine.content();
        let reference = format!("commit-{}", unique());
        let made = pieces::store_made(&*content, &reference, holder, |out| self.diff(out));
        let (made, digest, size) = made.await?;
        let left_out = made.left_out;
        if left_out.names + left_out.devices > 0 {
            tracing::warn!(
                container = self.container.id(),
                names = left_out.names,
                devices = left_out.devices,
                "files that no layer can hold were left out"
            );
        }
        Ok(Layer {
            digest,
            size,
            diff_id: made.diff_id,
            compression: self.options.compression,
        })
    }

    async fn diff(&self, out: Pieces) -> Result<Diffed> {
        let (container, engine) = (&self.container, &self.container.engine);
        let doing = || format!("making a layer of what container '{}' changed", container.id());
        let mut options = DiffOptions::default().ownership(engine.privilege.unpack_options().ownership);
        options.latest = self.options.created;
        let sink = longshore_snapshot::Error::Sink;
        let out = Compressor::new(self.options.compression, out)
            .map_err(sink)
            .at(doing())?;
        let snapshot = engine.snapshot_key(container.container_id());
        let (made, out) = diff_snapshot(&*engine.snapshotter, &snapshot, out, &options)
            .await
            .at(doing())?;
        blocking(move || out.finish().and_then(Pieces::end))
            .await
            .map_err(sink)
            .at(doing())?;
        Ok(made)
    }
}
