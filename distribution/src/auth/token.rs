use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::Scope;
use super::challenge::Challenge;
use crate::client::answer::{failure_reason, read_bounded};
use crate::client::http::{Call, Http, Payload, Tries};
use crate::{Credential, Error, Result};

/// The largest answer of a token server that is read.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// How long a token lives that does not say (distribution's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// What a request carries to be let in.
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    /// `None`: for as long as it is accepted.
    pub(super) lifetime: Option<Duration>,
}

/// What became of a credential.
pub(super) enum Outcome {
    Authorized(Authorization),
    /// The credential is not good enough; the reason is the server's.
    Denied(String),
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// `Basic`: user and password on every request.
pub(super) fn basic(credential: &Credential) -> Outcome {
    match credential {
        Credential::Basic { username, password } => Outcome::Authorized(Authorization {
            header: basic_header(username, password),
            lifetime: None,
        }),
        Credential::Anonymous => Outcome::Denied("it asks for a user and a password, and there are none for it".into()),
        Credential::IdentityToken(_) => {
            Outcome::Denied("it asks for a user and a password, and there is only an identity token".into())
        }
    }
}

/// `Bearer`: trades the credential (or nothing) for a token at the server that the challenge names.
pub(super) async fn bearer(
    http: &Http,
    scope: &Scope,
    challenge: &Challenge,
    credential: &Credential,
) -> Result<Outcome> {
    let realm = realm(http, scope, challenge)?;
    let wanted = challenge
        .param("scope")
        .filter(|scope| !scope.is_empty())
        .map_or_else(|| scope.to_string(), |asked| scope.join(asked));
    let call = match credential {
        Credential::IdentityToken(token) => oauth_call(realm, challenge.param("service"), &wanted, token),
        Credential::Basic { username, password } => {
            let mut call = token_call(realm, challenge.param("service"), &wanted);
            call.url.query_pairs_mut().append_pair("account", username);
            call.headers.insert(AUTHORIZATION, basic_header(username, password));
            call
        }
        Credential::Anonymous => token_call(realm, challenge.param("service"), &wanted),
    };
    let response = http.send(&call, &scope.host, None).await?;
    let status = response.status();
    if matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
    ) {
        return Ok(Outcome::Denied(failure_reason(http, response).await));
    }
    if !status.is_success() {
        return Err(Error::Status {
            registry: scope.host.clone(),
            status: status.as_u16(),
            request: call.label(),
            reason: failure_reason(http, response).await,
        });
    }
    let what = "the answer of its token server";
    let body = read_bounded(http, response, &call, &scope.host, MAX_TOKEN_ANSWER, what).await?;
    read_answer(&body, scope).map(Outcome::Authorized)
}

fn read_answer(body: &[u8], scope: &Scope) -> Result<Authorization> {
    let refuse = |reason: &str| Error::Protocol {
        registry: scope.host.clone(),
        what: "an answer of its token server".into(),
        reason: reason.into(),
    };
    // The parser's own message could quote the token.
    let answer: Answer = serde_json::from_slice(body).map_err(|_| refuse("it is not the JSON of a token"))?;
    let token = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| refuse("it has no token"))?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| refuse("its token has characters that no header can carry"))?;
    header.set_sensitive(true);
    let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    // A token that runs out on the way is a wasted request: renew it a little early.
    Ok(Authorization {
        header,
        lifetime: Some(lifetime.mul_f32(0.9)),
    })
}

/// The token server. Its address comes from the registry, so that the credential goes there is the registry's word;
/// that it goes there in the clear is not.
fn realm(http: &Http, scope: &Scope, challenge: &Challenge) -> Result<Url> {
    let refuse = |reason: String| Error::Protocol {
        registry: scope.host.clone(),
        what: "a challenge".into(),
        reason,
    };
    let realm = challenge
        .param("realm")
        .ok_or_else(|| refuse("it names no token server".into()))?;
    let url = Url::parse(realm).map_err(|_| refuse("the address of its token server can't be read".into()))?;
    let plain_is_fine = url.scheme() == "http" && http.is_plain() && http.may_be_plain(&url);
    if !(url.scheme() == "https" || plain_is_fine) || url.host_str().is_none() {
        return Err(refuse(
            "its token server is not reached by https: no credential is sent there".into(),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("the address of its token server has a user in it".into()));
    }
    Ok(url)
}

fn token_call(mut url: Url, service: Option<&str>, scope: &str) -> Call {
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
            query.append_pair("scope", scope);
        }
    }
    let mut call = Call::new(Method::GET, url);
    call.headers
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    call
}

fn oauth_call(url: Url, service: Option<&str>, scope: &str, refresh_token: &str) -> Call {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", service.unwrap_or_default())
        .append_pair("client_id", "longshore")
        .append_pair("scope", scope)
        .append_pair("refresh_token", refresh_token)
        .finish();
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Call {
        method: Method::POST,
        url,
        headers,
        payload: Payload::Bytes(form.into()),
        tries: Tries::Many,
    }
}

fn basic_header(username: &str, password: &str) -> HeaderValue {
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
        .expect("base64 fits in a header");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Action;

    fn scope() -> Scope {
        Scope {
            host: "r.example".into(),
            repository: "a/b".into(),
            action: Action::Pull,
            mount_from: None,
        }
    }

    #[test]
    fn answers() {
        let read = |text: &str| read_answer(text.as_bytes(), &scope());
        let token = read(r#"{"token":"t","expires_in":100}"#).unwrap();
        assert_eq!(token.header, "Bearer t");
        assert!(token.header.is_sensitive());
        assert_eq!(token.lifetime.unwrap().as_secs(), 90);
        assert_eq!(read(r#"{"token":"","access_token":"u"}"#).unwrap().header, "Bearer u");
        for bad in [
            "",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":"secret""#,
        ] {
            let Err(error) = read(bad) else { panic!("{bad}") };
            assert!(!error.to_string().contains("secret"));
        }
    }
}
