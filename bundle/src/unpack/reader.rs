use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longshore_content::Blob;
use tokio::runtime::Handle;

use super::{LayerState, Report};

/// How many bytes go by between two reports.
const STEP: u64 = 1 << 20;

/// A layer's blob as it is applied: it tells how far it got, stops when it was given up, and keeps the store's error,
/// which decoders on top of it may not hand on.
pub(super) struct LayerReader {
    blob: Arc<dyn Blob>,
    offset: u64,
    reported: u64,
    report: Report,
    given_up: Arc<AtomicBool>,
    failure: Option<longshore_content::Error>,
    /// Stores may need it, and it is read on whichever thread inflates.
    runtime: Handle,
}

impl LayerReader {
    /// Must be called inside of a runtime.
    pub(super) fn new(blob: Arc<dyn Blob>, report: Report, given_up: Arc<AtomicBool>) -> Self {
        Self {
            blob,
            offset: 0,
            reported: 0,
            report,
            given_up,
            failure: None,
            runtime: Handle::current(),
        }
    }

    /// Reads to the end, where the store says whether the blob was verified. Nothing is known of a blob in flight
    /// before.
    pub(super) fn drain(&mut self) -> io::Result<u64> {
        io::copy(self, &mut io::sink())
    }

    pub(super) fn take_failure(&mut self) -> Option<longshore_content::Error> {
        self.failure.take()
    }

    fn advance(&mut self, count: u64) {
        self.offset += count;
        let ended = count == 0 && self.reported < self.offset;
        if ended || self.offset - self.reported >= STEP {
            self.reported = self.offset;
            self.report.say(LayerState::Read(self.offset));
        }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for this layer any more"));
        }
        if self.failure.is_some() {
            return Err(io::Error::other("the content store failed before"));
        }
        let _inside = self.runtime.enter();
        match self.blob.read_at_blocking(self.offset, buf) {
            Ok(count) => {
                self.advance(count as u64);
                Ok(count)
            }
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the content store failed"))
            }
        }
    }
}
