//! Begins or resumes an ingest.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::claim::Claim;
use super::data::DataFile;
use super::durable::Syncing;
use super::hashing::Hashing;
use super::ingest::{LocalIngest, Shared};
use super::record::{Checkpoint, Request};
use super::slots::Reservation;
use super::store::Inner;
use super::writer::{Airborne, Writer};
use crate::error::IoContext;
use crate::expect::merge;
use crate::flight::Flight;
use crate::hash::Hasher;
use crate::{Error, IngestRequest, IngestStatus, Result};

/// Claims the ingest and starts its thread.
pub(crate) fn begin(store: &Arc<Inner>, reservation: Reservation, request: &IngestRequest) -> Result<LocalIngest> {
    let reference = &request.reference;
    let mut hasher = Hasher::expecting(request.expected.digest.as_ref())?;
    let claim = Claim::take(&store.layout.ingest(reference), reference)?;
    if let Some(digest) = &request.expected.digest
        && fs::symlink_metadata(store.layout.blob(digest)?).is_ok()
    {
        let _ = claim.remove();
        return Err(Error::AlreadyExists(digest.clone()));
    }
    let now = SystemTime::now();
    let mut status = IngestStatus {
        reference: reference.clone(),
        offset: 0,
        expected: request.expected.clone(),
        started: now,
        updated: now,
    };
    let data = match left_over(claim.path(), request) {
        Some(left) => {
            let data = DataFile::open_to_append(&claim.path().join("data"), left.status.offset)?;
            (status, hasher) = (left.status, left.hasher);
            data
        }
        None => start_over(&claim)?,
    };
    Request::new(reference, &status.expected, status.started).save(claim.path())?;

    let data = Arc::new(data);
    let (offset, expected_size) = (status.offset, status.expected.size);
    let flight = Flight::new(reference, data.clone(), expected_size, offset);
    let shared = Arc::new(Shared::new(claim.path().into(), status, flight));
    let (commands, queue) = mpsc::unbounded_channel();
    let slot = reservation.slot.clone();
    let air = Airborne {
        store: store.clone(),
        shared: shared.clone(),
    };
    air.announce();
    slot.set_writer(shared.clone());
    let writer = Writer {
        commands: queue,
        hashing: Hashing::new(hasher),
        syncing: Syncing::new(data.clone(), claim.path().into()),
        written: offset,
        checkpointed: offset,
        data,
        air,
        claim: Some(claim),
        _reservation: reservation,
    };
    writer.start()?;
    Ok(LocalIngest::new(shared, commands, slot))
}

/// Throws away the bytes that are there, and what was known of them first.
pub(crate) fn start_over(claim: &Claim) -> Result<DataFile> {
    Checkpoint::forget(claim)?;
    let path = claim.path().join("data");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).during("removing", path),
        _ => DataFile::open_to_append(&path, 0),
    }
}

/// A partial ingest on disk.
pub(crate) struct LeftOver {
    pub(crate) status: IngestStatus,
    hasher: Hasher,
}

impl LeftOver {
    /// Reads what is known of the ingest in a directory; `None` when there is none.
    pub(crate) fn load(directory: &Path) -> Option<Self> {
        let request = Request::load(directory)?;
        let expected = request.expected();
        let data = fs::symlink_metadata(directory.join("data")).ok()?;
        let fresh = || {
            Hasher::expecting(expected.digest.as_ref())
                .ok()
                .map(|hasher| (0, hasher))
        };
        let (offset, hasher) = Checkpoint::load(directory).or_else(fresh)?;
        let started = request.started();
        let updated = data.modified().unwrap_or(started);
        let status = IngestStatus {
            reference: request.reference,
            offset,
            expected,
            started,
            updated,
        };
        Some(Self { status, hasher })
    }
}

/// What was left under the reference, if it is a part of what is asked for now.
fn left_over(directory: &Path, request: &IngestRequest) -> Option<LeftOver> {
    let mut left = LeftOver::load(directory)?;
    if left.status.reference != request.reference {
        return None;
    }
    left.status.expected = merge(&left.status, &left.hasher, &request.expected)?;
    Some(left)
}
