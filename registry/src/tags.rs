//! Lists: of tags, of repositories, of referrers.

use http::header::{HeaderName, LINK};
use http::{HeaderValue, StatusCode};
use oci_spec::image::Digest;
use serde_json::{Value, json};

use crate::answer::{Answer, Refusal, json as json_answer};
use crate::log::lock;
use crate::repositories::Manifest;
use crate::route::query;
use crate::state::State;

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn list(state: &State, repository: &str, asked: Option<&str>) -> Result<Answer, Refusal> {
    let repositories = lock(&state.repositories);
    let Some(found) = repositories.get(repository) else {
        let message = format!("there is no repository '{repository}'");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message));
    };
    let (page, next) = page(found.tags.keys(), asked);
    let answer = json_answer(
        StatusCode::OK,
        "application/json",
        &json!({ "name": repository, "tags": page }),
    );
    Ok(with_next(answer, &format!("/v2/{repository}/tags/list"), next))
}

pub(crate) fn catalogue(state: &State, asked: Option<&str>) -> Answer {
    let repositories = lock(&state.repositories);
    let (page, next) = page(repositories.names(), asked);
    let answer = json_answer(StatusCode::OK, "application/json", &json!({ "repositories": page }));
    with_next(answer, "/v2/_catalog", next)
}

/// The names after `last`, at most `n`; and the query of the next page if there is more.
fn page<'a>(names: impl Iterator<Item = &'a String>, asked: Option<&str>) -> (Vec<&'a str>, Option<String>) {
    let last = query(asked, "last").unwrap_or_default();
    let limit = query(asked, "n")
        .and_then(|n| n.parse::<usize>().ok())
        .unwrap_or(usize::MAX);
    let mut names = names.map(String::as_str).filter(|name| *name > last.as_str());
    let page: Vec<&str> = names.by_ref().take(limit).collect();
    let more = names.next().is_some();
    let next = page
        .last()
        .filter(|_| more)
        .map(|last| format!("n={limit}&last={last}"));
    (page, next)
}

fn with_next(mut answer: Answer, path: &str, next: Option<String>) -> Answer {
    let link = next.and_then(|next| HeaderValue::from_str(&format!("<{path}?{next}>; rel=\"next\"")).ok());
    if let Some(link) = link {
        answer.headers_mut().insert(LINK, link);
    }
    answer
}

pub(crate) fn referrers(state: &State, repository: &str, digest: &Digest, asked: Option<&str>) -> Answer {
    let wanted = query(asked, "artifactType");
    let repositories = lock(&state.repositories);
    let mut found: Vec<Value> = repositories
        .get(repository)
        .into_iter()
        .flat_map(|repository| &repository.manifests)
        .filter(|(_, manifest)| manifest.summary.subject.as_ref() == Some(digest))
        .filter(|(_, manifest)| wanted.is_none() || manifest.summary.artifact_type == wanted)
        .map(|(digest, manifest)| describe(digest, manifest))
        .collect();
    found.sort_by_key(|descriptor| descriptor["digest"].to_string());
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": found });
    let mut answer = json_answer(StatusCode::OK, INDEX, &index);
    if wanted.is_some() {
        answer
            .headers_mut()
            .insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    answer
}

fn describe(digest: &Digest, manifest: &Manifest) -> Value {
    let mut descriptor = json!({ "mediaType": manifest.media_type, "digest": digest, "size": manifest.size });
    if let Some(artifact_type) = &manifest.summary.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if !manifest.summary.annotations.is_empty() {
        descriptor["annotations"] = json!(manifest.summary.annotations);
    }
    descriptor
}
