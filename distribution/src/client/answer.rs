//! What a server says, read within bounds.

use bytes::Bytes;
use futures::stream::StreamExt;
use reqwest::Response;

use super::http::{Call, Http};
use crate::Result;
use crate::manifest::Bounded;

/// How much of an error's body is read.
const MAX_FAILURE: usize = 16 << 10;
/// How much of it is shown.
const MAX_REASON: usize = 400;

/// A whole body, up to a limit that does not depend on what length was announced.
pub(crate) async fn read_bounded(
    http: &Http,
    response: Response,
    call: &Call,
    registry: &str,
    limit: u64,
    what: &str,
) -> Result<Bytes> {
    let mut body = http.body(response, call, registry);
    let mut bytes = Bounded::new(limit);
    while let Some(chunk) = body.next().await {
        bytes.push(&chunk?, what)?;
    }
    Ok(bytes.into_bytes())
}

/// What a server says of a failure, made fit to be shown: the messages of the distribution specification's error
/// body, or the beginning of whatever text it is.
pub(crate) async fn failure_reason(http: &Http, mut response: Response) -> String {
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < MAX_FAILURE {
        match tokio::time::timeout(http.idle, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_FAILURE - body.len())]),
            _ => break,
        }
    }
    let said = spoken(&body);
    if said.is_empty() {
        return status
            .canonical_reason()
            .unwrap_or("it gave no reason")
            .to_ascii_lowercase();
    }
    said
}

fn spoken(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Failures {
        #[serde(default)]
        errors: Vec<One>,
        details: Option<String>,
        message: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        code: Option<String>,
        message: Option<String>,
    }
    let text = match serde_json::from_slice::<Failures>(body) {
        Ok(Failures { errors, .. }) if !errors.is_empty() => {
            let one = |one: One| match (one.code, one.message.filter(|message| !message.is_empty())) {
                (Some(code), Some(message)) => format!("{message} ({code})"),
                (code, message) => message.or(code).unwrap_or_default(),
            };
            errors.into_iter().map(one).collect::<Vec<_>>().join("; ")
        }
        Ok(Failures { details, message, .. }) => details.or(message).unwrap_or_default(),
        // A page for a browser helps nobody here.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_REASON)
        .collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let one = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m such right"},{"code":"X"}]}"#;
        assert_eq!(spoken(one), "no [31m such right (DENIED); X");
        assert_eq!(
            spoken(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(spoken(b"<html>no</html>"), "");
        assert_eq!(spoken(b"plain\n"), "plain");
        assert_eq!(spoken(&[b'x'; 5000]).len(), MAX_REASON);
        assert_eq!(spoken(&[0xff, 0xfe]), "\u{fffd}\u{fffd}");
    }
}
