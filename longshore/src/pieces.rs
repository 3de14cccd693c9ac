//! A layer on its way from a thread that makes it to the content store.

use std::io::{self, Write};
use std::mem;

use bytes::{Bytes, BytesMut};
use longshore_content::{ContentStore, ErrorKind, Expected, Hasher, IngestRequest};
use longshore_metadata::Resource;
use oci_spec::image::{Digest, DigestAlgorithm};
use tokio::sync::mpsc;

use crate::Result;
use crate::error::At;
use crate::image::Holder;

/// Bytes that go to the content store at once, and how many such pieces may wait.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 4;

/// Stores a layer while it is made; what making it gave, its digest and its size.
pub(crate) async fn store_made<T, F>(
    content: &dyn ContentStore,
    reference: &str,
    holder: &Holder,
    make: impl FnOnce(Pieces) -> F,
) -> Result<(T, Digest, u64)>
where
    F: Future<Output = Result<T>>,
{
    let (send, receive) = mpsc::channel(WAITING);
    let (made, stored) = tokio::join!(make(Pieces::new(send)), store(content, reference, receive, holder));
    if made.is_err() || stored.is_err() {
        // What stays is a partial ingest that nobody writes, which a collection removes.
        let _ = content.abort(reference).await;
    }
    // When storing failed, the other side only knows that nobody listens.
    let (digest, size) = stored?;
    Ok((made?, digest, size))
}

/// Some bytes, or the end of a layer that is whole.
#[derive(Debug)]
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
#[derive(Debug)]
pub(crate) struct Pieces {
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

    pub(crate) fn end(mut self) -> io::Result<()> {
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
