use std::io::Read;
use std::mem;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Scope};

use crate::apply::Compression;
use crate::apply::source::Source;
use crate::{Error, Result};

/// Uncompressed bytes that are handed over at once. Content is written to files straight from them.
pub(super) const PIECE: usize = 256 * 1024;
/// How many pieces may wait.
const WAITING: usize = 4;

/// The uncompressed bytes of a layer, read ahead on a thread of its own: what inflates a layer takes about as long as what makes its files.
pub(super) struct Ahead {
    pieces: Receiver<Result<Vec<u8>>>,
    used: Sender<Vec<u8>>,
}

impl Ahead {
    /// Starts the thread. It ends with the layer, at its first error, or when this is dropped and the read that it is in returns.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        layer: impl Read + Send + 'scope,
        compression: Option<Compression>,
    ) -> Result<Self> {
        let (hand_over, pieces) = sync_channel(WAITING);
        let (used, spare) = channel();
        let read = move || {
            let outcome = Source::open(layer, compression).and_then(|source| read_all(source, &hand_over, &spare));
            if let Err(error) = outcome {
                // Nobody listens any more when the other side failed first.
                let _ = hand_over.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name("longshore-inflate".into());
        thread.spawn_scoped(scope, read).map_err(Error::Source)?;
        Ok(Self { pieces, used })
    }

    /// The next piece, of at least one byte; `None` is the end. `used` is one that is not needed any more.
    pub(super) fn next(&mut self, used: Vec<u8>) -> Result<Option<Vec<u8>>> {
        if (PIECE..=2 * PIECE).contains(&used.capacity()) {
            // At the end nobody wants it.
            let _ = self.used.send(used);
        }
        // A panic of the thread ends the bytes too, and then the scope.
        self.pieces.recv().ok().transpose()
    }
}

fn read_all(mut source: Source<'_>, hand_over: &SyncSender<Result<Vec<u8>>>, spare: &Receiver<Vec<u8>>) -> Result<()> {
    let mut total = 0;
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut len = 0;
        // A decompressor may give little at a time; whole pieces make fewer writes.
        let end = loop {
            match source.read(&mut piece[len..], total + len as u64) {
                Ok(0) => break Some(Ok(())),
                Ok(got) => len += got,
                // What came before it is still a part of the layer.
                Err(error) => break Some(Err(error)),
            }
            if len == PIECE {
                break None;
            }
        };
        piece.truncate(len);
        total += len as u64;
        let wanted = piece.is_empty() || hand_over.send(Ok(mem::take(&mut piece))).is_ok();
        match end {
            Some(outcome) => return outcome,
            None if !wanted => return Ok(()),
            None => {}
        }
    }
}
