use std::os::fd::AsFd;

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::{Usage, usage};

/// What a snapshot takes on disk, kept up while a layer is applied.
#[derive(Debug)]
pub(super) struct Tally {
    usage: Usage,
    /// Nothing was there before, and nothing could not be looked at.
    whole: bool,
}

impl Tally {
    /// Of a directory that is empty.
    pub(super) fn of_nothing() -> Self {
        // The root directory itself.
        let usage = Usage { bytes: 0, inodes: 1 };
        Self { usage, whole: true }
    }

    /// Of a directory in which there is something already: nothing is counted.
    pub(super) fn unknown() -> Self {
        Self {
            whole: false,
            ..Self::of_nothing()
        }
    }

    pub(super) fn total(&self) -> Option<Usage> {
        self.whole.then_some(self.usage)
    }

    /// Something was made that takes no bytes yet.
    pub(super) fn made(&mut self) {
        self.usage.inodes += 1;
    }

    /// Something was made, and this is how it is now.
    pub(super) fn made_as(&mut self, stat: &Stat) {
        self.made();
        self.resized(0, usage::bytes(stat));
    }

    /// Something took `before` bytes and takes `now`.
    pub(super) fn resized(&mut self, before: u64, now: u64) {
        self.usage.bytes = (self.usage.bytes + now).saturating_sub(before);
    }

    /// So many whiteouts were removed.
    pub(super) fn whiteouts_removed(&mut self, count: u64) {
        self.usage.inodes = self.usage.inodes.saturating_sub(count);
    }

    /// `name` in `dir` is about to be removed.
    pub(super) fn about_to_remove(&mut self, dir: impl AsFd, name: &[u8]) {
        if !self.whole {
            return;
        }
        match usage::freed(dir, name) {
            Ok(freed) => {
                self.usage.bytes = self.usage.bytes.saturating_sub(freed.bytes);
                self.usage.inodes = self.usage.inodes.saturating_sub(freed.inodes);
            }
            Err(Errno::NOENT) => {}
            // A directory that bars its owner: somebody who asks has it counted.
            Err(_) => self.whole = false,
        }
    }
}
