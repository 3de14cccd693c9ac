//! Answers, and refusals in the JSON form of the distribution specification.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use longshore_content::{Error, ErrorKind};

pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;
pub(crate) type Answer = Response<Body>;

pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode, headers: &[(HeaderName, &str)]) -> Answer {
    with_body(status, headers, whole(Bytes::new()))
}

pub(crate) fn with_body(status: StatusCode, headers: &[(HeaderName, &str)], body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    for (name, value) in headers {
        // Everything that gets here was parsed into a digest, a name or a number, or came as a header.
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

pub(crate) fn json(status: StatusCode, media_type: &str, value: &serde_json::Value) -> Answer {
    with_body(status, &[(CONTENT_TYPE, media_type)], whole(value.to_string()))
}

/// The same without its body, whose length is still told (HEAD).
pub(crate) fn head_only(answer: Answer) -> Answer {
    let length = http_body::Body::size_hint(answer.body()).exact();
    let (mut parts, _) = answer.into_parts();
    if let (Some(length), false) = (length, parts.headers.contains_key(CONTENT_LENGTH)) {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, whole(Bytes::new()))
}

/// Why a request is refused: a code of the specification and a sentence.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn bad_digest(text: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            format!("'{text}' is not a digest that can be verified"),
        )
    }

    pub(crate) fn unknown_blob(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            format!("blob {what} is not in this repository"),
        )
    }

    pub(crate) fn unknown_manifest(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("manifest {what} is not in this repository"),
        )
    }

    pub(crate) fn unknown_upload() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            "no such upload; begin another one",
        )
    }

    pub(crate) fn not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this method is not served here",
        )
    }

    pub(crate) fn into_answer(self) -> Answer {
        let body = serde_json::json!({ "errors": [{ "code": self.code, "message": self.message, "detail": {} }] });
        let mut answer = json(self.status, "application/json", &body);
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                answer.headers_mut().append(name, value);
            }
        }
        answer
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            ErrorKind::Verification | ErrorKind::Unsupported => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            ErrorKind::InUse => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            ErrorKind::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        };
        Self::new(status, code, error.to_string())
    }
}
