//! Uploads: each is an ingest of the content store, which a cut connection leaves to be gone on with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use longshore_content::{Error, Expected, Ingest, IngestRequest};
use oci_spec::image::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::answer::{Answer, Refusal, empty};
use crate::auth::Need;
use crate::blobs::DIGEST;
use crate::log::lock;
use crate::random::token;
use crate::route::{parse_digest, query};
use crate::service::holds;
use crate::state::State;

/// More at a time are refused.
const OPEN: usize = 1000;

/// One that nothing was heard of for so long is thrown away when another one begins.
const IDLE: Duration = Duration::from_secs(3600);

/// The uploads that are open, by id.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Upload>>);

#[derive(Clone, Debug)]
struct Upload {
    repository: String,
    heard: Instant,
    ingest: Arc<AsyncMutex<Option<Box<dyn Ingest>>>>,
}

impl Uploads {
    /// Takes out those that were forgotten by their clients.
    fn expire(&self) -> Vec<String> {
        let mut uploads = lock(&self.0);
        let old: Vec<String> = uploads
            .iter()
            .filter(|(_, upload)| upload.heard.elapsed() > IDLE)
            .map(|(id, _)| id.clone())
            .collect();
        old.iter().for_each(|id| drop(uploads.remove(id)));
        old
    }

    fn add(&self, id: &str, repository: &str, ingest: Box<dyn Ingest>) -> Result<(), Refusal> {
        let mut uploads = lock(&self.0);
        if uploads.len() >= OPEN {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "too many uploads are open",
            ));
        }
        let ingest = Arc::new(AsyncMutex::new(Some(ingest)));
        uploads.insert(
            id.into(),
            Upload {
                repository: repository.into(),
                heard: Instant::now(),
                ingest,
            },
        );
        Ok(())
    }

    /// The ingest of an upload, which nobody else may be writing to.
    fn take(&self, id: &str, repository: &str) -> Result<OwnedMutexGuard<Option<Box<dyn Ingest>>>, Refusal> {
        let mut uploads = lock(&self.0);
        let upload = uploads.get_mut(id).filter(|upload| upload.repository == repository);
        let upload = upload.ok_or_else(Refusal::unknown_upload)?;
        upload.heard = Instant::now();
        upload.ingest.clone().try_lock_owned().map_err(|_| {
            Refusal::new(
                StatusCode::CONFLICT,
                "BLOB_UPLOAD_INVALID",
                "another request writes to this upload",
            )
        })
    }

    fn remove(&self, id: &str) {
        lock(&self.0).remove(id);
    }
}

fn reference(id: &str) -> String {
    format!("upload-{id}")
}

/// `POST`: mounts a blob of another repository, takes a whole blob, or opens an upload.
pub(crate) async fn begin(state: &State, repository: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let asked = request.uri().query();
    if let Some(digest) = query(asked, "mount") {
        let digest = parse_digest(&digest)?;
        let from = query(asked, "from");
        if mount(state, repository, &digest, from.as_deref(), request.headers()) {
            return Ok(created(repository, &digest));
        }
    }
    for id in state.uploads.expire() {
        let _ = state.content.abort(&reference(&id)).await;
    }
    let id = token();
    let wanted = query(asked, "digest").map(|digest| parse_digest(&digest)).transpose()?;
    let expected = Expected {
        digest: wanted.clone(),
        size: None,
    };
    let ingest = match state
        .content
        .ingest(IngestRequest {
            reference: reference(&id),
            expected,
        })
        .await
    {
        Err(Error::AlreadyExists(digest)) => {
            link(state, repository, &digest);
            return Ok(created(repository, &digest));
        }
        ingest => ingest?,
    };
    if let Some(digest) = wanted {
        // A whole blob in one request; there is nothing to go on with when it fails.
        let whole = receive_whole(ingest, request, &digest).await;
        if whole.is_err() {
            let _ = state.content.abort(&reference(&id)).await;
        }
        whole?;
        link(state, repository, &digest);
        return Ok(created(repository, &digest));
    }
    state.uploads.add(&id, repository, ingest)?;
    Ok(accepted(repository, &id, 0, StatusCode::ACCEPTED))
}

async fn receive_whole(
    mut ingest: Box<dyn Ingest>,
    request: Request<Incoming>,
    digest: &Digest,
) -> Result<(), Refusal> {
    receive(&mut ingest, request).await?;
    commit(ingest, digest).await
}

/// Takes a blob that another repository has, if the client may see it there.
fn mount(state: &State, repository: &str, digest: &Digest, from: Option<&str>, headers: &HeaderMap) -> bool {
    let source = match from {
        Some(from) => holds(state, from, digest).then(|| from.to_owned()),
        None => lock(&state.repositories).holder(digest).map(str::to_owned),
    };
    let may_see = |source: &str| {
        state.authority.allows(
            headers,
            Some(Need {
                repository: source,
                action: "pull",
            }),
        )
    };
    let mounted = source.is_some_and(|source| may_see(&source));
    if mounted {
        link(state, repository, digest);
    }
    mounted
}

/// `GET`: how far it is.
pub(crate) async fn status(state: &State, repository: &str, id: &str) -> Result<Answer, Refusal> {
    let ingest = state.uploads.take(id, repository)?;
    let ingest = ingest.as_ref().ok_or_else(Refusal::unknown_upload)?;
    Ok(accepted(repository, id, ingest.status().offset, StatusCode::NO_CONTENT))
}

/// `PATCH`: appends.
pub(crate) async fn append(
    state: &State,
    repository: &str,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let mut guard = state.uploads.take(id, repository)?;
    let ingest = guard.as_mut().ok_or_else(Refusal::unknown_upload)?;
    check_offset(ingest.as_ref(), repository, id, request.headers())?;
    receive(ingest, request).await?;
    Ok(accepted(repository, id, ingest.status().offset, StatusCode::ACCEPTED))
}

/// `PUT`: appends what comes, and makes it a blob.
pub(crate) async fn finish(
    state: &State,
    repository: &str,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let digest = query(request.uri().query(), "digest").unwrap_or_default();
    let digest = parse_digest(&digest)?;
    let mut guard = state.uploads.take(id, repository)?;
    let ingest = guard.as_mut().ok_or_else(Refusal::unknown_upload)?;
    check_offset(ingest.as_ref(), repository, id, request.headers())?;
    receive(ingest, request).await?;
    let ingest = guard.take().ok_or_else(Refusal::unknown_upload)?;
    state.uploads.remove(id);
    commit(ingest, &digest).await?;
    link(state, repository, &digest);
    Ok(created(repository, &digest))
}

/// `DELETE`: throws it away.
pub(crate) async fn cancel(state: &State, repository: &str, id: &str) -> Result<Answer, Refusal> {
    drop(state.uploads.take(id, repository)?.take());
    state.uploads.remove(id);
    state.content.abort(&reference(id)).await?;
    Ok(empty(StatusCode::NO_CONTENT, &[]))
}

/// A chunk must begin where the last one ended.
fn check_offset(ingest: &dyn Ingest, repository: &str, id: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(range) = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()) else {
        return Ok(());
    };
    // The specification has "0-99", clients send "bytes 0-99/100" as well.
    let first = range
        .trim_start_matches("bytes")
        .trim()
        .split('-')
        .next()
        .and_then(|first| first.parse::<u64>().ok());
    let offset = ingest.status().offset;
    if first == Some(offset) {
        return Ok(());
    }
    let message = format!("the next byte is {offset}");
    Err(
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            .with_header(RANGE, received(offset))
            .with_header(LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
    )
}

/// A fault on purpose: no more than so many bytes are taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut(pub(crate) u64);

async fn receive(ingest: &mut Box<dyn Ingest>, request: Request<Incoming>) -> Result<(), Refusal> {
    let cut_off = || Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the upload was cut off");
    let mut room = request.extensions().get::<Cut>().map_or(u64::MAX, |cut| cut.0);
    let mut frames = BodyStream::new(request.into_body());
    while let Some(frame) = frames.next().await {
        if let Ok(mut data) = frame.map_err(|_| cut_off())?.into_data() {
            data.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            room -= data.len() as u64;
            ingest.write(data).await?;
        }
        if room == 0 {
            return Err(cut_off());
        }
    }
    Ok(())
}

async fn commit(ingest: Box<dyn Ingest>, digest: &Digest) -> Result<(), Refusal> {
    match ingest
        .commit(Expected {
            digest: Some(digest.clone()),
            size: None,
        })
        .await
    {
        Ok(_) | Err(Error::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn link(state: &State, repository: &str, digest: &Digest) {
    lock(&state.repositories).make(repository).blobs.insert(digest.clone());
}

fn created(repository: &str, digest: &Digest) -> Answer {
    let location = format!("/v2/{repository}/blobs/{digest}");
    empty(StatusCode::CREATED, &[(LOCATION, &location), (DIGEST, digest.as_ref())])
}

fn accepted(repository: &str, id: &str, offset: u64, status: StatusCode) -> Answer {
    let location = format!("/v2/{repository}/blobs/uploads/{id}");
    let fields = [
        (LOCATION, location.as_str()),
        (RANGE, &received(offset)),
        (CONTENT_LENGTH, "0"),
        (http::HeaderName::from_static("docker-upload-uuid"), id),
    ];
    // 204 must not have a length (RFC 9110, section 8.6).
    let fields = if status == StatusCode::NO_CONTENT {
        [&fields[..2], &fields[3..]].concat()
    } else {
        fields.to_vec()
    };
    empty(status, &fields)
}

fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}
