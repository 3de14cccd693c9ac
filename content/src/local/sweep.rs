//! Removes what crashes left that is of no use: an ingest without its request, or without its bytes.

use std::fs;

use super::begin::LeftOver;
use super::claim::Claim;
use super::layout::Layout;
use crate::Result;
use crate::error::IoContext;

/// A directory that someone holds, and a name that is none of ours, is left alone.
pub(crate) fn sweep(layout: &Layout) -> Result<()> {
    let ingests = layout.ingests();
    for entry in fs::read_dir(&ingests).during("listing", &ingests)? {
        let path = entry.during("listing", &ingests)?.path();
        let ours = path.file_name().is_some_and(|name| name.len() == 64) && path.is_dir();
        if !ours || LeftOver::load(&path).is_some() {
            continue;
        }
        if let Ok(Some(claim)) = Claim::take_existing(&path, "")
            && LeftOver::load(claim.path()).is_none()
        {
            claim.remove()?;
        }
    }
    Ok(())
}
