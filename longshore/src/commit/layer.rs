use std::io::{self, Write};
use std::mem;

use bytes::{Bytes, BytesMut};
use longshore_content::{ContentStore, ErrorKind, Expected, Hasher, IngestRequest};
use longshore_metadata::Resource;
use longshore_snapshot::{Compression, Compressor, DiffOptions, Diffed, diff_snapshot};
use oci_spec::image::{Digest, DigestAlgorithm};
use tokio::sync::mpsc;

use super::CommitBuilder;
use crate::Result;
use crate::create::blocking;
use crate::error::At;
use crate::image::{Holder, unique};

/// Bytes that go to the content store at once, and how many such pieces may wait.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 4;

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
        let reference = format!("commit-{}-{}", std::process::id(), unique());
        let (send, receive) = mpsc::channel(WAITING);
        let (made, stored) = tokio::join!(self.diff(send), store(&*content, &reference, receive, holder));
        if made.is_err() || stored.is_err() {
            // What stays is a partial ingest that nobody writes, which a collection removes.
            let _ = content.abort(&reference).await;
        }
        // When storing failed, the other side only knows that nobody listens.
        let (digest, size) = stored?;
        let made = made?;
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

    async fn diff(&self, send: mpsc::Sender<Piece>) -> Result<Diffed> {
        let (container, engine) = (&self.container, &self.container.engine);
        let doing = || format!("making a layer of what container '{}' changed", container.id());
        let mut options = DiffOptions::default().ownership(engine.privilege.unpack_options().ownership);
        options.latest = self.options.created;
        let sink = longshore_snapshot::Error::Sink;
        let out = Compressor::new(self.options.compression, Pieces::new(send))
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

/// Some bytes, or the end of a layer that is whole.
enum Piece {
    Bytes(Bytes),
    End,
}

/// Stores what comes, and gives its digest and size.
async fn store(
    content: &dyn ContentStore,
    reference: &str,
    mut pieces: mpsc::Receiver<Piece>,
    holder: &Holder,
) -> Result<(Digest, u64)> {
    let doing = "storing a layer";
    let request = IngestRequest {
        reference: reference.to_owned(),
        expected: Expected::default(),
    };
    let mut ingest = content.ingest(request).await.at(doing)?;
    let mut hasher = Hasher::new(&DigestAlgorithm::Sha256).at(doing)?;
    let mut size = 0;
    while let Some(piece) = pieces.recv().await {
        let Piece::Bytes(bytes) = piece else {
            let digest = hasher.finish();
            // Held before it is there, so that no collection finds it without a holder.
            let resource = Resource::Content(digest.to_string());
            holder.hold(&[resource]).await.at(doing)?;
            let expected = Expected {
                digest: Some(digest.clone()),
                size: Some(size),
            };
            return match ingest.commit(expected).await {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).at(doing),
                _ => Ok((digest, size)),
            };
        };
        hasher.update(&bytes);
        size += bytes.len() as u64;
        ingest.write(bytes).await.at(doing)?;
    }
    // The other side failed, and its error is told.
    Ok((hasher.finish(), size))
}

/// Hands what is written to another task, a piece at a time. Blocks.
struct Pieces {
    send: mpsc::Sender<Piece>,
    buf: BytesMut,
}

impl Pieces {
    fn new(send: mpsc::Sender<Piece>) -> Self {
        Self {
            send,
            buf: BytesMut::with_capacity(PIECE),
        }
    }

    fn end(mut self) -> io::Result<()> {
        self.hand_over()?;
        self.send(Piece::End)
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let full = mem::replace(&mut self.buf, BytesMut::with_capacity(PIECE));
        match full.is_empty() {
            true => Ok(()),
            false => self.send(Piece::Bytes(full.freeze())),
        }
    }

    fn send(&self, piece: Piece) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the content store takes no more");
        self.send.blocking_send(piece).map_err(gone)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.buf.len();
        let taken = bytes.len().min(room);
        self.buf.extend_from_slice(&bytes[..taken]);
        if self.buf.len() == PIECE {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
