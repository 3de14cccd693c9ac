//! Blobs, whole or a range of them (RFC 9110, section 14).

use std::ops::Range;
use std::sync::Arc;

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, RANGE};
use http::{HeaderMap, StatusCode};
use longshore_content::BlobExt;
use oci_spec::image::Digest;

use crate::answer::{Answer, Refusal, empty, with_body};
use crate::body::streamed;
use crate::log::lock;
use crate::service::holds;
use crate::state::State;

pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(crate) async fn get(
    state: &State,
    repository: &str,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    if !holds(state, repository, digest) {
        return Err(Refusal::unknown_blob(digest));
    }
    let blob: Arc<_> = state.content.open(digest).await?;
    let size = blob.size().unwrap_or(0);
    let asked = headers
        .get(RANGE)
        .and_then(|range| range.to_str().ok())
        .and_then(|range| read_range(range, size));
    let (status, range) = match asked {
        None => (StatusCode::OK, 0..size),
        Some(Ok(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Err(Unsatisfiable)) => {
            let refusal = Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "SIZE_INVALID",
                "the blob ends before that",
            );
            return Err(refusal.with_header(CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let (digest, length) = (digest.to_string(), (range.end - range.start).to_string());
    let mut fields = vec![
        (CONTENT_LENGTH, length.as_str()),
        (CONTENT_TYPE, "application/octet-stream"),
        (ACCEPT_RANGES, "bytes"),
        (DIGEST, &digest),
    ];
    let etag = format!("\"{digest}\"");
    fields.push((ETAG, &etag));
    let part = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    if status == StatusCode::PARTIAL_CONTENT {
        fields.push((CONTENT_RANGE, &part));
    }
    Ok(with_body(status, &fields, streamed(blob.stream_range(range))))
}

/// Takes it out of the repository. The bytes stay in the content store, where others may need them.
pub(crate) fn delete(state: &State, repository: &str, digest: &Digest) -> Result<Answer, Refusal> {
    let mut repositories = lock(&state.repositories);
    let removed = repositories
        .get_mut(repository)
        .is_some_and(|repository| repository.blobs.remove(digest));
    if removed {
        Ok(empty(StatusCode::ACCEPTED, &[]))
    } else {
        Err(Refusal::unknown_blob(digest))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// Reads a `Range` header. `None` when it is to be ignored: another unit, several ranges, nonsense.
fn read_range(header: &str, size: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => {
            let suffix: u64 = suffix.parse().ok()?;
            size.saturating_sub(suffix)..size
        }
        (first, "") => first.parse().ok()?..size,
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            first..size.min(last.saturating_add(1))
        }
    };
    Some(if range.start < range.end {
        Ok(range)
    } else {
        Err(Unsatisfiable)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, expected) in [
            ("bytes=0-0", Some(Ok(0..1))),
            ("bytes=5-", Some(Ok(5..10))),
            ("bytes=5-100", Some(Ok(5..10))),
            ("bytes=-3", Some(Ok(7..10))),
            ("bytes=-100", Some(Ok(0..10))),
            ("bytes=10-", Some(Err(Unsatisfiable))),
            ("bytes=-0", Some(Err(Unsatisfiable))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("items=0-1", None),
            ("bytes=18446744073709551615-", Some(Err(Unsatisfiable))),
            ("bytes=0-18446744073709551615", Some(Ok(0..10))),
        ] {
            assert_eq!(read_range(header, 10), expected, "{header}");
        }
    }
}
