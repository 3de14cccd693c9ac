//! Which references are being written through this store, by whom.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Semaphore;

use super::ingest::Shared;
use crate::flight::lock;

/// The references in use.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<String, Arc<Slot>>>);

/// One reference in use.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Set once the writer is at work.
    writer: OnceLock<Arc<Shared>>,
    /// The writer was dropped and is putting things in order.
    closing: AtomicBool,
    /// Closed (it never has a permit) when the reference is free again.
    freed: Semaphore,
}

impl Slot {
    pub(crate) fn writer(&self) -> Option<&Arc<Shared>> {
        self.writer.get()
    }

    pub(crate) fn set_writer(&self, writer: Arc<Shared>) {
        let _ = self.writer.set(writer);
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) async fn freed(&self) {
        let _ = self.freed.acquire().await;
    }
}

/// Holds a reference; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    slots: Arc<Slots>,
    reference: String,
    pub(crate) slot: Arc<Slot>,
}

impl Slots {
    /// Takes the reference, or says who has it.
    pub(crate) fn reserve(self: &Arc<Self>, reference: &str) -> Result<Reservation, Arc<Slot>> {
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.get(reference) {
            return Err(slot.clone());
        }
        let slot = Arc::new(Slot {
            writer: OnceLock::new(),
            closing: AtomicBool::new(false),
            freed: Semaphore::new(0),
        });
        slots.insert(reference.into(), slot.clone());
        Ok(Reservation {
            slots: self.clone(),
            reference: reference.into(),
            slot,
        })
    }

    /// Waits out a writer that is closing. `None` when there is no writer, or none yet.
    pub(crate) async fn settled(&self, reference: &str) -> Option<Arc<Slot>> {
        loop {
            let slot = lock(&self.0).get(reference)?.clone();
            if !slot.is_closing() {
                return Some(slot);
            }
            slot.freed().await;
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        lock(&self.0).values().cloned().collect()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.slots.0).remove(&self.reference);
        self.slot.freed.close();
    }
}
