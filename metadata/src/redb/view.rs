use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use redb::ReadTransaction;

use super::database::{CHANGES, Handle, InTable, storage};
use super::store::blocking;
use crate::plan::Lookup;
use crate::{Key, Record, Result, View, codec};

/// One state of a [`RedbStore`](super::RedbStore): a read transaction that is kept.
pub(super) struct RedbView {
    revision: u64,
    // Before the handle, which closes the file.
    transaction: Arc<ReadTransaction>,
    handle: Arc<Handle>,
}

impl fmt::Debug for RedbView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbView")
            .field("revision", &self.revision)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl RedbView {
    pub(super) fn new(handle: Arc<Handle>) -> Result<Self> {
        let transaction = handle.begin_read()?;
        Ok(Self {
            revision: handle.revision(&transaction)?,
            transaction: Arc::new(transaction),
            handle,
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Handle, &ReadTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (handle, transaction) = (Arc::clone(&self.handle), Arc::clone(&self.transaction));
        blocking(handle.path().into(), move || {
            handle.guarded(|| work(&handle, &transaction))
        })
        .await
    }
}

#[async_trait]
impl View for RedbView {
    fn revision(&self) -> u64 {
        self.revision
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.handle.guarded(|| {
            let state = InTable {
                handle: &self.handle,
                table: &self.handle.records(&self.transaction)?,
            };
            state.lookup(key)
        })
    }

    async fn scan(&self, after: Option<&Key>, limit: usize) -> Result<Vec<Record>> {
        let after = after.map(codec::key);
        self.blocking(move |handle, transaction| {
            let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let table = handle.records(transaction)?;
            let range = table
                .range::<&[u8]>((start, Bound::Unbounded))
                .map_err(storage(handle))?;
            range
                .take(limit)
                .map(|entry| handle.decode(entry.map_err(storage(handle))?.1.value()))
                .collect()
        })
        .await
    }

    async fn changed(&self, since: u64) -> Result<Vec<Record>> {
        self.blocking(move |handle, transaction| {
            let fail = handle.failed("reading");
            let changes = transaction.open_table(CHANGES).map_err(|e| fail(e.into()))?;
            let records = handle.records(transaction)?;
            let mut changed = Vec::new();
            for entry in changes
                .range((since.saturating_add(1), &[] as &[u8])..)
                .map_err(storage(handle))?
            {
                let (change, ()) = entry
                    .map(|(change, nothing)| (change, nothing.value()))
                    .map_err(storage(handle))?;
                let record = records.get(change.value().1).map_err(storage(handle))?;
                let record =
                    record.ok_or_else(|| handle.corrupt("its list of changes names a record that is not there"))?;
                changed.push(handle.decode(record.value())?);
            }
            Ok(changed)
        })
        .await
    }
}
