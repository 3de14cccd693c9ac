//! Proving who one is: challenges, tokens, and the memory of what was accepted.

mod challenge;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::HeaderValue;

pub(crate) use challenge::{Challenge, parse as parse_challenges};
use token::Outcome;

use crate::client::http::Http;
use crate::{Credential, Credentials, Error, Result};

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Pull,
    Push,
}

impl Action {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The registry, as the reference names it.
    pub(crate) host: String,
    pub(crate) repository: String,
    pub(crate) action: Action,
    /// Another repository of the same registry, whose blobs are to be taken over.
    pub(crate) mount_from: Option<String>,
}

impl Scope {
    /// What a challenge asks for, and what it can't know of.
    fn join(&self, asked: &str) -> String {
        match &self.mount_from {
            Some(from) => format!("{asked} repository:{from}:pull"),
            None => asked.to_owned(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = match self.action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.repository);
        f.write_str(&self.join(&own))
    }
}

/// The authorization that a request went out with.
#[derive(Clone, Default)]
pub(crate) struct Pass {
    pub(crate) header: Option<HeaderValue>,
    generation: u64,
}

/// What is known for one scope.
#[derive(Default)]
struct Slot {
    pass: Pass,
    expires: Option<Instant>,
    /// The challenge that was answered last, to renew a token that ran out without being refused first.
    challenge: Option<Challenge>,
}

impl Slot {
    fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= Instant::now())
    }
}

/// Remembers tokens for each scope and credentials for each repository. Requests for one scope share one renewal.
pub(crate) struct Authenticator {
    credentials: Arc<dyn Credentials>,
    /// By host and repository.
    known: Mutex<HashMap<(String, String), Credential>>,
    slots: Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    pub(crate) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self {
            credentials,
            known: Mutex::default(),
            slots: Mutex::default(),
        }
    }

    fn slot(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(scope.clone()).or_default().clone()
    }

    /// What to send with the next request: nothing at first, later what was accepted, renewed when it ran out.
    pub(crate) async fn pass(&self, http: &Http, scope: &Scope) -> Result<Pass> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        if slot.is_expired()
            && let Some(challenge) = slot.challenge.clone()
            && let Err(reason) = self.renew(http, scope, &mut slot, &[challenge]).await?
        {
            return Err(self.denied(scope, reason));
        }
        Ok(slot.pass.clone())
    }

    /// Answers the challenges that a request with `used` was refused with.
    ///
    /// Another request may have renewed meanwhile: then its pass is the answer.
    pub(crate) async fn answer(&self, http: &Http, scope: &Scope, used: &Pass, refused: Refused) -> Result<Pass> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        if slot.pass.generation != used.generation && !slot.is_expired() {
            return Ok(slot.pass.clone());
        }
        if refused.freshness == Freshness::JustObtained && !self.forget(scope).await? {
            return Err(self.denied(scope, refused.reason));
        }
        match self.renew(http, scope, &mut slot, &refused.challenges).await? {
            Ok(()) => Ok(slot.pass.clone()),
            Err(reason) => Err(self.denied(scope, reason)),
        }
    }

    /// Obtains a new pass; the inner error is the reason of a refusal.
    async fn renew(
        &self,
        http: &Http,
        scope: &Scope,
        slot: &mut Slot,
        challenges: &[Challenge],
    ) -> Result<Result<(), String>> {
        let pick = |scheme| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let Some(challenge) = pick("bearer").or_else(|| pick("basic")) else {
            return Ok(Err(
                "it asks for a way to log in that is not supported (Basic and Bearer are)".into(),
            ));
        };
        let mut outcome = self.trade(http, scope, challenge).await?;
        if matches!(outcome, Outcome::Denied(_)) && self.forget(scope).await? {
            outcome = self.trade(http, scope, challenge).await?;
        }
        match outcome {
            Outcome::Authorized(authorization) => {
                slot.pass = Pass {
                    header: Some(authorization.header),
                    generation: slot.pass.generation + 1,
                };
                slot.expires = authorization.lifetime.map(|lifetime| Instant::now() + lifetime);
                slot.challenge = Some(challenge.clone());
                Ok(Ok(()))
            }
            Outcome::Denied(reason) => Ok(Err(reason)),
        }
    }

    async fn trade(&self, http: &Http, scope: &Scope, challenge: &Challenge) -> Result<Outcome> {
        let credential = self.credential(scope).await?;
        match challenge.scheme.as_str() {
            "bearer" => token::bearer(http, scope, challenge, &credential).await,
            _ => Ok(token::basic(&credential)),
        }
    }

    async fn credential(&self, scope: &Scope) -> Result<Credential> {
        let key = key(scope);
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let credential = self.credentials.credential(&scope.host, &scope.repository).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(key).or_insert(credential).clone())
    }

    /// Asks again for a credential that was refused; whether it is another one now.
    async fn forget(&self, scope: &Scope) -> Result<bool> {
        let old = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key(scope));
        let new = self.credential(scope).await?;
        Ok(old.is_some_and(|old| old != new))
    }

    fn denied(&self, scope: &Scope, reason: String) -> Error {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match known.get(&key(scope)) {
            Some(Credential::Anonymous) => format!("no login for it is known ({reason})"),
            _ => reason,
        };
        Error::Unauthorized {
            registry: scope.host.clone(),
            action: scope.action.name(),
            repository: scope.repository.clone(),
            reason,
        }
    }
}

fn key(scope: &Scope) -> (String, String) {
    (scope.host.clone(), scope.repository.clone())
}

/// How a request was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) challenges: Vec<Challenge>,
    /// What the registry said.
    pub(crate) reason: String,
    pub(crate) freshness: Freshness,
}

/// Whether the pass that was refused had been obtained for this very request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    JustObtained,
    FromBefore,
}
