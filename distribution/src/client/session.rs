use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use reqwest::Response;

use super::answer::failure_reason;
use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::http::Call;
use crate::auth::{Action, Freshness, Refused, Scope, parse_challenges};
use crate::{Error, Result};

/// How many times one request may be refused and authorized anew.
const MAX_REFUSALS: u32 = 3;

impl RegistryClient {
    /// Sends a request with what the registry demands. Any answer but 401 is the caller's to judge.
    pub(super) async fn request(&self, endpoint: &Endpoint, call: &Call, scope: &Scope) -> Result<Response> {
        let mut pass = self.auth.pass(&endpoint.http, scope).await?;
        let mut freshness = Freshness::FromBefore;
        for _ in 0..MAX_REFUSALS {
            let response = endpoint.http.send(call, &scope.host, pass.header.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let challenges = response
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(parse_challenges)
                .collect();
            let refused = Refused {
                challenges,
                reason: failure_reason(&endpoint.http, response).await,
                freshness,
            };
            pass = self.auth.answer(&endpoint.http, scope, &pass, refused).await?;
            freshness = Freshness::JustObtained;
        }
        Err(Error::Unauthorized {
            registry: scope.host.clone(),
            action: scope.action.name(),
            repository: scope.repository.clone(),
            reason: "it keeps refusing what it has just given".into(),
        })
    }

    /// The error that an answer with a failure status stands for; `what` was asked for.
    pub(super) async fn failure(
        &self,
        endpoint: &Endpoint,
        response: Response,
        call: &Call,
        scope: &Scope,
        what: &str,
    ) -> Error {
        let status = response.status();
        let reason = failure_reason(&endpoint.http, response).await;
        match status {
            StatusCode::NOT_FOUND if scope.action == Action::Pull => Error::NotFound {
                what: what.to_owned(),
                registry: scope.host.clone(),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized {
                registry: scope.host.clone(),
                action: scope.action.name(),
                repository: scope.repository.clone(),
                reason,
            },
            _ => Error::Status {
                registry: scope.host.clone(),
                status: status.as_u16(),
                request: call.label(),
                reason,
            },
        }
    }
}
