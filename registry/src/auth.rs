//! Who may do what: nobody asks, basic authentication, or bearer tokens with scopes that expire.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::answer::{Answer, Refusal, json as json_answer};
use crate::log::lock;
use crate::random::token;
use crate::route::{Route, queries, query};

/// How clients prove who they are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Auth {
    /// They don't.
    #[default]
    None,
    /// User and password with each request (RFC 7617).
    Basic(Users),
    /// Tokens from the registry's own `/token` endpoint (the Docker and OCI token flow).
    Bearer(Bearer),
}

/// Users and their passwords.
#[derive(Clone, Default)]
pub struct Users(HashMap<String, String>);

/// How tokens are given.
#[derive(Clone, Debug)]
pub struct Bearer {
    users: Users,
    anonymous: Anonymous,
    lifetime: Duration,
}

/// What those may do who do not say who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Anonymous {
    /// Get no token.
    #[default]
    Refused,
    /// Get a token to pull with, as with public images on Docker's hub.
    MayPull,
}

impl Auth {
    /// Basic authentication for one user.
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Basic(Users::default().with(user, password))
    }

    /// Tokens for one user, who may do everything; anonymous clients get none.
    pub fn bearer(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Bearer(Bearer::new(Users::default().with(user, password)))
    }
}

impl Users {
    /// Adds a user.
    pub fn with(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.0.insert(user.into(), password.into());
        self
    }

    fn know(&self, credentials: &(String, String)) -> bool {
        // Not in constant time: this registry is for tests and machines that trust each other.
        self.0
            .get(&credentials.0)
            .is_some_and(|password| *password == credentials.1)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Bearer {
    /// Tokens for these users, for five minutes.
    pub fn new(users: Users) -> Self {
        Self {
            users,
            anonymous: Anonymous::Refused,
            lifetime: Duration::from_secs(300),
        }
    }

    /// What clients without a name get.
    pub fn anonymous(mut self, anonymous: Anonymous) -> Self {
        self.anonymous = anonymous;
        self
    }

    /// How long a token is good for. Less than a second is told to clients as 0 seconds.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

impl From<Bearer> for Auth {
    fn from(bearer: Bearer) -> Self {
        Self::Bearer(bearer)
    }
}

/// The tokens that were given out, by text.
#[derive(Default)]
pub(crate) struct Authority {
    auth: Auth,
    tokens: Mutex<HashMap<String, Grant>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever has a token's text has the token.
        f.debug_struct("Authority")
            .field("auth", &self.auth)
            .field("tokens", &lock(&self.tokens).len())
            .finish()
    }
}

#[derive(Clone, Debug)]
struct Grant {
    /// (repository, action)
    allowed: HashSet<(String, String)>,
    until: Instant,
}

/// More tokens at a time are refused.
const TOKENS: usize = 100_000;

/// What a request needs: a repository and an action (`pull`, `push`, `delete`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) repository: &'a str,
    pub(crate) action: &'static str,
}

impl Authority {
    pub(crate) fn new(auth: Auth) -> Self {
        Self {
            auth,
            tokens: Mutex::default(),
        }
    }

    /// Lets a request pass, or challenges it.
    pub(crate) fn check(&self, headers: &HeaderMap, need: Option<Need<'_>>) -> Result<(), Refusal> {
        if self.allows(headers, need) {
            Ok(())
        } else {
            Err(self.challenge(headers, need))
        }
    }

    pub(crate) fn allows(&self, headers: &HeaderMap, need: Option<Need<'_>>) -> bool {
        match &self.auth {
            Auth::None => true,
            Auth::Basic(users) => basic(headers).is_some_and(|credentials| users.know(&credentials)),
            Auth::Bearer(_) => self.token_allows(headers, need),
        }
    }

    fn token_allows(&self, headers: &HeaderMap, need: Option<Need<'_>>) -> bool {
        let Some(token) = header(headers, "bearer") else {
            return false;
        };
        let tokens = lock(&self.tokens);
        let Some(grant) = tokens.get(token).filter(|grant| grant.until > Instant::now()) else {
            return false;
        };
        need.is_none_or(|Need { repository, action }| {
            let has = |action: &str| grant.allowed.contains(&(repository.to_owned(), action.to_owned()));
            has(action) || has("*")
        })
    }

    /// The answer to a request that may not pass.
    pub(crate) fn challenge(&self, headers: &HeaderMap, need: Option<Need<'_>>) -> Refusal {
        let challenge = match &self.auth {
            Auth::Bearer(_) => {
                let host = headers
                    .get(HOST)
                    .and_then(|host| host.to_str().ok())
                    .unwrap_or("localhost");
                let mut challenge = format!(r#"Bearer realm="http://{host}/token",service="longshore""#);
                if let Some(Need { repository, action }) = need {
                    let actions = if action == "pull" { "pull" } else { "pull,push" };
                    let actions = if action == "delete" { "delete" } else { actions };
                    challenge.push_str(&format!(r#",scope="repository:{repository}:{actions}""#));
                }
                if headers.contains_key(AUTHORIZATION) {
                    challenge.push_str(r#",error="invalid_token""#);
                }
                challenge
            }
            _ => r#"Basic realm="longshore",charset="UTF-8""#.to_owned(),
        };
        Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication is required")
            .with_header(WWW_AUTHENTICATE, challenge)
    }

    /// Serves `GET /token`.
    pub(crate) fn give_token(&self, headers: &HeaderMap, asked: Option<&str>) -> Result<Answer, Refusal> {
        self.grant(basic(headers), asked)
    }

    /// Serves `POST /token`, where the form has the credentials.
    pub(crate) fn give_token_for(&self, form: &str) -> Result<Answer, Refusal> {
        let form = Some(form);
        self.grant(query(form, "username").zip(query(form, "password")), form)
    }

    fn grant(&self, credentials: Option<(String, String)>, asked: Option<&str>) -> Result<Answer, Refusal> {
        let Auth::Bearer(bearer) = &self.auth else {
            return Err(Refusal::not_allowed());
        };
        let known = match &credentials {
            Some(credentials) if bearer.users.know(credentials) => true,
            None if bearer.anonymous == Anonymous::MayPull => false,
            _ => {
                return Err(Refusal::new(
                    StatusCode::UNAUTHORIZED,
                    "UNAUTHORIZED",
                    "user or password is wrong",
                ));
            }
        };
        let scopes: Vec<String> = queries(asked, "scope").collect();
        let allowed = scopes
            .iter()
            .flat_map(|scopes| scopes.split(' '))
            .flat_map(|scope| read_scope(scope, known));
        let text = token();
        self.remember(
            text.clone(),
            Grant {
                allowed: allowed.collect(),
                until: Instant::now() + bearer.lifetime,
            },
        )?;
        let seconds = bearer.lifetime.as_secs();
        let body = json!({ "token": text, "access_token": text, "expires_in": seconds });
        Ok(json_answer(StatusCode::OK, "application/json", &body))
    }

    fn remember(&self, text: String, grant: Grant) -> Result<(), Refusal> {
        let mut tokens = lock(&self.tokens);
        let now = Instant::now();
        if tokens.len() >= TOKENS {
            tokens.retain(|_, grant| grant.until > now);
        }
        if tokens.len() >= TOKENS {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "too many tokens are valid",
            ));
        }
        tokens.insert(text, grant);
        Ok(())
    }

    /// All tokens are worthless from now on.
    pub(crate) fn revoke(&self) {
        lock(&self.tokens).clear();
    }
}

/// `repository:name:pull,push` as pairs; what the client may not do is left out, as the token flow wants it.
fn read_scope(scope: &str, known: bool) -> Vec<(String, String)> {
    let Some(rest) = scope.strip_prefix("repository:") else {
        return vec![];
    };
    let Some((repository, actions)) = rest.rsplit_once(':') else {
        return vec![];
    };
    let allowed = actions.split(',').filter(|&action| known || action == "pull");
    allowed
        .map(|action| (repository.to_owned(), action.to_owned()))
        .collect()
}

/// What a request needs.
pub(crate) fn need<'a>(route: &'a Route, method: &http::Method) -> Option<Need<'a>> {
    let action = match (route, method.as_str()) {
        (Route::Uploads { .. } | Route::Upload { .. }, _) => "push",
        (_, "GET" | "HEAD") => "pull",
        (_, "DELETE") => "delete",
        _ => "push",
    };
    Some(Need {
        repository: route.repository()?,
        action,
    })
}

fn header<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (named, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| value.trim())
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let decoded = STANDARD.decode(header(headers, "basic")?).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.into(), password.into()))
}
