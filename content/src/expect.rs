//! What was promised of a blob against what came.

use oci_spec::image::Digest;

use crate::hash::Hasher;
use crate::{Error, Expected, IngestStatus, Result};

/// More bytes than expected are an error before they are stored.
pub(crate) fn check_room(reference: &str, expected: &Expected, offset: u64, more: usize) -> Result<()> {
    let actual = offset.saturating_add(more as u64);
    match expected.size {
        Some(expected) if actual > expected => Err(Error::SizeMismatch {
            reference: reference.into(),
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}

/// All bytes are there: as many as the request and the commit promised.
pub(crate) fn check_sizes(status: &IngestStatus, at_commit: &Expected) -> Result<()> {
    for expected in [status.expected.size, at_commit.size].into_iter().flatten() {
        if expected != status.offset {
            return Err(Error::SizeMismatch {
                reference: status.reference.clone(),
                expected,
                actual: status.offset,
            });
        }
    }
    Ok(())
}

/// The bytes have each digest that was promised. Returns the blob's address: the first promised one, or what came.
///
/// `again` feeds all bytes to a hasher once more, for a commit that names another algorithm than the request did.
pub(crate) fn check_digests(
    status: &IngestStatus,
    at_commit: &Expected,
    hasher: &Hasher,
    again: impl Fn(&mut Hasher) -> Result<()>,
) -> Result<Digest> {
    let digest = hasher.clone().finish();
    let mut address = None;
    for expected in [&status.expected.digest, &at_commit.digest].into_iter().flatten() {
        let actual = if *expected.algorithm() == hasher.algorithm() {
            digest.clone()
        } else {
            let mut other = Hasher::new(expected.algorithm())?;
            again(&mut other)?;
            other.finish()
        };
        if actual != *expected {
            let reference = status.reference.clone();
            return Err(Error::DigestMismatch {
                reference,
                expected: expected.clone(),
                actual,
            });
        }
        address.get_or_insert(actual);
    }
    Ok(address.unwrap_or(digest))
}

/// What a left-over ingest and a new request for it promise together; `None` when it can't be gone on with.
pub(crate) fn merge(left: &IngestStatus, hasher: &Hasher, now: &Expected) -> Option<Expected> {
    let then = &left.expected;
    let merged = Expected {
        digest: agree(then.digest.as_ref(), now.digest.as_ref())?.cloned(),
        size: agree(then.size, now.size)?,
    };
    let fits = merged.size.is_none_or(|size| left.offset <= size);
    let same_hash = merged
        .digest
        .as_ref()
        .is_none_or(|digest| *digest.algorithm() == hasher.algorithm());
    (fits && same_hash).then_some(merged)
}

/// `None` when the two contradict each other.
fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<Option<T>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => Some(one.or(other)),
    }
}
