use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use futures::channel::oneshot;

use super::database::{CHANGES, FACTS, Handle, InTable, RECORDS, REVISION};
use crate::plan::{Changes, plan};
use crate::{Batch, Error, Result, codec};

/// The most batches that share one transaction, so that the first of them need not wait for long.
const MOST_TOGETHER: usize = 256;

struct Request {
    batch: Batch,
    answer: oneshot::Sender<Result<u64>>,
}

/// The one thread that writes. Batches that wait while it commits go together into the next transaction and share its fsync; each is still whole or not at all.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(handle: Arc<Handle>) -> Result<Self> {
        let (requests, inbox) = channel();
        let path = handle.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("longshore-meta".into())
            .spawn(move || run(&handle, &inbox))
            .map_err(|source| Error::Io {
                action: "starting the writer's thread for",
                path,
                source: source.into(),
            })?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Hands a batch over. What comes back is ready when the batch is durable; dropping it does not stop the batch.
    pub(super) fn send(&self, batch: Batch) -> oneshot::Receiver<Result<u64>> {
        let (answer, receiver) = oneshot::channel();
        if let Some(requests) = &self.requests {
            // If the thread is gone the answer's sender is dropped here, and the receiver says so.
            let _ = requests.send(Request { batch, answer });
        }
        receiver
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(handle: &Handle, inbox: &Receiver<Request>) {
    while let Ok(first) = inbox.recv() {
        let mut requests = vec![first];
        while requests.len() < MOST_TOGETHER {
            match inbox.recv_timeout(std::time::Duration::ZERO) {
                Ok(request) => requests.push(request),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let (batches, answers): (Vec<_>, Vec<_>) = requests.into_iter().map(|r| (r.batch, r.answer)).unzip();
        match handle.guarded(|| commit(handle, batches)) {
            Ok(results) => answers
                .into_iter()
                .zip(results)
                .for_each(|(answer, result)| drop(answer.send(result))),
            Err(error) => {
                // Everybody learns of it; the first one gets the cause.
                let mut error = Some(error);
                for answer in answers {
                    let closed = || Error::Closed {
                        path: handle.path().into(),
                    };
                    drop(answer.send(Err(error.take().unwrap_or_else(closed))));
                }
            }
        }
    }
}

/// Applies batches one after another in one transaction. A batch that is refused changes nothing, and does not concern the others.
fn commit(handle: &Handle, batches: Vec<Batch>) -> Result<Vec<Result<u64>>> {
    let fail = handle.failed("writing");
    let now = SystemTime::now();
    let transaction = handle.begin_write()?;
    let mut results = Vec::with_capacity(batches.len());
    let changed = {
        let mut records = transaction.open_table(RECORDS).map_err(|e| fail(e.into()))?;
        let mut changes = transaction.open_table(CHANGES).map_err(|e| fail(e.into()))?;
        let mut facts = transaction.open_table(FACTS).map_err(|e| fail(e.into()))?;
        let before = handle.revision_of(&facts)?;
        let mut revision = before;
        for batch in batches {
            let state = InTable {
                handle,
                table: &records,
            };
            match plan(batch, &state, revision, now) {
                Ok(planned) if planned.is_empty() => results.push(Ok(revision)),
                Ok(planned) => {
                    write(handle, planned, &mut records, &mut changes)?;
                    revision += 1;
                    results.push(Ok(revision));
                }
                Err(refused) => results.push(Err(refused)),
            }
        }
        facts.insert(REVISION, revision).map_err(|e| fail(e.into()))?;
        revision > before
    };
    if changed {
        transaction.commit().map_err(|e| fail(e.into()))?;
    } else {
        transaction.abort().map_err(|e| fail(e.into()))?;
    }
    Ok(results)
}

type Records<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;
type ChangeLog<'t> = redb::Table<'t, (u64, &'static [u8]), ()>;

fn write(handle: &Handle, planned: Changes, records: &mut Records<'_>, changes: &mut ChangeLog<'_>) -> Result<()> {
    let fail = handle.failed("writing");
    for (key, change) in planned {
        let key = codec::key(&key);
        let old = match &change {
            Some(record) => {
                let bytes = codec::record(record).map_err(|error| Error::Invalid {
                    what: "record",
                    value: record.key.to_string(),
                    reason: error.to_string(),
                })?;
                changes
                    .insert((record.revision, key.as_slice()), ())
                    .map_err(|e| fail(e.into()))?;
                records.insert(key.as_slice(), bytes.as_slice())
            }
            None => records.remove(key.as_slice()),
        };
        let old = old
            .map_err(|e| fail(e.into()))?
            .map(|old| handle.decode(old.value()))
            .transpose()?;
        if let Some(old) = old.filter(|old| change.as_ref().is_none_or(|new| new.revision != old.revision)) {
            changes
                .remove((old.revision, key.as_slice()))
                .map_err(|e| fail(e.into()))?;
        }
    }
    Ok(())
}
