//! One request: logged, perhaps spoiled, allowed, served.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::answer::{Answer, Refusal, empty, head_only, json, whole, with_body};
use crate::auth::need;
use crate::faults::Fault;
use crate::log::{LoggedRequest, lock};
use crate::route::Route;
use crate::state::State;
use crate::{blobs, body, manifests, tags, uploads};

pub(crate) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A token request is a short form.
const FORM: usize = 64 << 10;

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(crate) struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up on purpose")
    }
}

impl std::error::Error for Hangup {}

impl From<Infallible> for Hangup {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

pub(crate) async fn serve(state: Arc<State>, mut request: Request<Incoming>) -> Result<Answer, Hangup> {
    let mut logged = LoggedRequest::new(&request);
    let fault = state.faults.as_ref().and_then(|faults| faults.fault(&logged));
    let is_head = request.method() == Method::HEAD;
    let answer = match &fault {
        Some(Fault::Hangup) => {
            state.log.add(logged);
            return Err(Hangup);
        }
        Some(fault) => match instead(&state, &request, fault) {
            Some(answer) => answer,
            None => {
                match *fault {
                    Fault::Delay(delay) => tokio::time::sleep(delay).await,
                    Fault::CutUploadAfter(bytes) => drop(request.extensions_mut().insert(uploads::Cut(bytes))),
                    _ => {}
                }
                let answer = answer(&state, request).await;
                if matches!(fault, Fault::CutUploadAfter(_)) && !answer.status().is_success() {
                    state.log.add(logged);
                    return Err(Hangup);
                }
                answer
            }
        },
        None => answer(&state, request).await,
    };
    let answer = if is_head { head_only(answer) } else { answer };
    let mut answer = match &fault {
        Some(fault) => body::spoil(answer, fault),
        None => answer,
    };
    answer
        .headers_mut()
        .insert(API_VERSION, http::HeaderValue::from_static("registry/2.0"));
    logged.status = Some(answer.status());
    let counter = logged.counter();
    state.log.add(logged);
    Ok(body::counted(answer, counter))
}

/// The answer of a fault that is one by itself.
fn instead(state: &State, request: &Request<Incoming>, fault: &Fault) -> Option<Answer> {
    let refuse = |status, code| Refusal::new(status, code, "a fault on purpose");
    Some(match fault {
        Fault::Status(status) => refuse(*status, "UNKNOWN").into_answer(),
        Fault::TooManyRequests(seconds) => refuse(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")
            .with_header(RETRY_AFTER, seconds.to_string())
            .into_answer(),
        Fault::Unauthorized => {
            let route = Route::parse(request.uri().path()).ok().flatten();
            let need = route.as_ref().and_then(|route| need(route, request.method()));
            state.authority.challenge(request.headers(), need).into_answer()
        }
        Fault::RedirectTo(host) => {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            empty(StatusCode::TEMPORARY_REDIRECT, &[(LOCATION, &format!("{host}{path}"))])
        }
        Fault::Body(media_type, bytes) => {
            with_body(StatusCode::OK, &[(CONTENT_TYPE, media_type)], whole(bytes.clone()))
        }
        _ => return None,
    })
}

async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let answer = match Route::parse(request.uri().path()) {
        Ok(Some(route)) => dispatch(state, route, request).await,
        Ok(None) => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "nothing is served at this path",
        )),
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(Refusal::into_answer)
}

async fn dispatch(state: &Arc<State>, route: Route, request: Request<Incoming>) -> Result<Answer, Refusal> {
    if route == Route::Token {
        return token(state, request).await;
    }
    state
        .authority
        .check(request.headers(), need(&route, request.method()))?;
    let method = request.method().clone();
    match (route, method.as_str()) {
        (Route::Base, "GET" | "HEAD") => Ok(json(StatusCode::OK, "application/json", &serde_json::json!({}))),
        (Route::Catalogue, "GET") => Ok(tags::catalogue(state, request.uri().query())),
        (Route::Tags { repository }, "GET") => tags::list(state, &repository, request.uri().query()),
        (Route::Referrers { repository, digest }, "GET") => {
            Ok(tags::referrers(state, &repository, &digest, request.uri().query()))
        }
        (Route::Manifest { repository, reference }, "GET" | "HEAD") => {
            manifests::get(state, &repository, &reference).await
        }
        (Route::Manifest { repository, reference }, "PUT") => {
            manifests::put(state, &repository, &reference, request).await
        }
        (Route::Manifest { repository, reference }, "DELETE") => manifests::delete(state, &repository, &reference),
        (Route::Blob { repository, digest }, "GET" | "HEAD") => {
            blobs::get(state, &repository, &digest, request.headers()).await
        }
        (Route::Blob { repository, digest }, "DELETE") => blobs::delete(state, &repository, &digest),
        (Route::Uploads { repository }, "POST") => uploads::begin(state, &repository, request).await,
        (Route::Upload { repository, id }, "GET") => uploads::status(state, &repository, &id).await,
        (Route::Upload { repository, id }, "PATCH") => uploads::append(state, &repository, &id, request).await,
        (Route::Upload { repository, id }, "PUT") => uploads::finish(state, &repository, &id, request).await,
        (Route::Upload { repository, id }, "DELETE") => uploads::cancel(state, &repository, &id).await,
        _ => Err(Refusal::not_allowed()),
    }
}

async fn token(state: &State, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    match parts.method.as_str() {
        "GET" => state.authority.give_token(&parts.headers, parts.uri.query()),
        "POST" => {
            let too_long = |_| Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", "the form can't be read");
            let form = Limited::new(body, FORM).collect().await.map_err(too_long)?.to_bytes();
            state.authority.give_token_for(&String::from_utf8_lossy(&form))
        }
        _ => Err(Refusal::not_allowed()),
    }
}

/// Whether a blob is there for those who look into a repository.
pub(crate) fn holds(state: &State, repository: &str, digest: &oci_spec::image::Digest) -> bool {
    lock(&state.repositories).has_blob(repository, digest)
}
