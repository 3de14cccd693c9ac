//! Manifests and indexes, kept as they were pushed.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use longshore_content::{ContentStoreExt, Expected, Hasher};
use oci_spec::image::Digest;

use crate::answer::{Answer, Refusal, empty, whole, with_body};
use crate::blobs::DIGEST;
use crate::log::lock;
use crate::manifest::{LIMIT, Summary};
use crate::random::token;
use crate::repositories::{Manifest, Repository};
use crate::route::Reference;
use crate::state::State;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

pub(crate) async fn get(state: &State, repository: &str, reference: &Reference) -> Result<Answer, Refusal> {
    let (digest, media_type) = {
        let repositories = lock(&state.repositories);
        let unknown = || Refusal::unknown_manifest(reference);
        let repository = repositories.get(repository).ok_or_else(unknown)?;
        let digest = resolve(repository, reference).ok_or_else(unknown)?;
        let manifest = repository.manifests.get(&digest).ok_or_else(unknown)?;
        (digest, manifest.media_type.clone())
    };
    let bytes = state.content.read(&digest, LIMIT as u64).await?;
    let (digest, length) = (digest.to_string(), bytes.len().to_string());
    let etag = format!("\"{digest}\"");
    let fields = [
        (CONTENT_TYPE, media_type.as_str()),
        (CONTENT_LENGTH, &length),
        (DIGEST, &digest),
        (ETAG, &etag),
    ];
    Ok(with_body(StatusCode::OK, &fields, whole(bytes)))
}

pub(crate) async fn put(
    state: &State,
    repository: &str,
    reference: &Reference,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = Limited::new(body, LIMIT).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("a manifest may have {LIMIT} bytes");
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message);
        }
        Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "the manifest was cut off")
    })?;
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let wanted = match reference {
        Reference::Digest(digest) => Some(digest),
        Reference::Tag(_) => None,
    };
    let (digest, subject) = store(
        state,
        repository,
        media_type,
        bytes.to_bytes(),
        wanted,
        Missing::Refused,
    )
    .await?;
    if let Reference::Tag(tag) = reference {
        lock(&state.repositories)
            .make(repository)
            .tags
            .insert(tag.clone(), digest.clone());
    }
    let location = format!("/v2/{repository}/manifests/{digest}");
    let mut answer = empty(StatusCode::CREATED, &[(LOCATION, &location), (DIGEST, digest.as_ref())]);
    if let Some(value) = subject.and_then(|subject| http::HeaderValue::from_str(subject.as_ref()).ok()) {
        answer.headers_mut().insert(SUBJECT, value);
    }
    Ok(answer)
}

/// What becomes of a manifest that names blobs that its repository does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is refused.
    Refused,
    /// They are taken from the content store, where they may be.
    TakenIn,
}

/// Checks a manifest and keeps it. Returns its digest, and the manifest that it is about.
pub(crate) async fn store(
    state: &State,
    repository: &str,
    media_type: Option<&str>,
    bytes: Bytes,
    wanted: Option<&Digest>,
    missing: Missing,
) -> Result<(Digest, Option<Digest>), Refusal> {
    let invalid = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message);
    let summary = Summary::read(&bytes).map_err(invalid)?;
    let media_type = match (media_type, &summary.media_type) {
        (Some(told), Some(own)) if told != own => {
            return Err(invalid(format!("Content-Type is {told}, but mediaType is {own}")));
        }
        (told, own) => told
            .or(own.as_deref())
            .ok_or_else(|| invalid("neither Content-Type nor mediaType".into()))?
            .to_owned(),
    };
    let mut hasher = wanted.map_or_else(|| Ok(Hasher::default()), |wanted| Hasher::new(wanted.algorithm()))?;
    hasher.update(&bytes);
    let digest = hasher.finish();
    if wanted.is_some_and(|wanted| *wanted != digest) {
        let message = format!("the manifest's digest is {digest}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message));
    }
    if missing == Missing::TakenIn {
        take_in(state, repository, &summary).await?;
    }
    check_parts(state, repository, &summary)?;

    let size = bytes.len() as u64;
    let expected = Expected {
        digest: Some(digest.clone()),
        size: Some(size),
    };
    state
        .content
        .put(&format!("manifest-{}", token()), bytes, expected)
        .await?;
    let subject = summary.subject.clone();
    let manifest = Manifest {
        media_type,
        size,
        summary,
    };
    lock(&state.repositories)
        .make(repository)
        .manifests
        .insert(digest.clone(), manifest);
    Ok((digest, subject))
}

async fn take_in(state: &State, repository: &str, summary: &Summary) -> Result<(), Refusal> {
    for digest in &summary.blobs {
        if state.content.contains(digest).await? {
            lock(&state.repositories).make(repository).blobs.insert(digest.clone());
        }
    }
    Ok(())
}

fn check_parts(state: &State, repository: &str, summary: &Summary) -> Result<(), Refusal> {
    let unknown = |digest: &Digest| {
        let message = format!("{digest}, which the manifest needs, is not in this repository; push it first");
        Err(Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", message))
    };
    let repositories = lock(&state.repositories);
    let empty = Repository::default();
    let there = repositories.get(repository).unwrap_or(&empty);
    if let Some(digest) = summary.blobs.iter().find(|digest| !there.blobs.contains(digest)) {
        return unknown(digest);
    }
    match summary
        .manifests
        .iter()
        .find(|digest| !there.manifests.contains_key(digest))
    {
        Some(digest) => unknown(digest),
        None => Ok(()),
    }
}

pub(crate) fn delete(state: &State, repository: &str, reference: &Reference) -> Result<Answer, Refusal> {
    let mut repositories = lock(&state.repositories);
    let unknown = || Refusal::unknown_manifest(reference);
    let repository = repositories.get_mut(repository).ok_or_else(unknown)?;
    match reference {
        Reference::Tag(tag) => drop(repository.tags.remove(tag).ok_or_else(unknown)?),
        Reference::Digest(digest) => {
            repository.manifests.remove(digest).ok_or_else(unknown)?;
            repository.tags.retain(|_, tagged| tagged != digest);
        }
    }
    Ok(empty(StatusCode::ACCEPTED, &[]))
}

fn resolve(repository: &Repository, reference: &Reference) -> Option<Digest> {
    match reference {
        Reference::Tag(tag) => repository.tags.get(tag).cloned(),
        Reference::Digest(digest) => Some(digest.clone()),
    }
}
