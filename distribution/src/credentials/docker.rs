use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::helper;
use crate::{Credential, Credentials, Error, Result};

/// The largest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// How Docker's files call Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The logins of `docker login` and `podman login`: Docker's `config.json`, podman's `auth.json`.
///
/// In each file, for a host: its helper in `credHelpers`, else the one in `credsStore`, else its entry in `auths`; of podman's entries for a part of a
/// registry (`quay.io/team/app`, `quay.io/team`) the longest that the repository lies in comes before the host's. The
/// first file that has a credential counts. Files are read, and helpers run, each time that a client asks, which is
/// once for each repository; a file that is not there is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    files: Vec<PathBuf>,
}

impl DockerConfig {
    /// The usual places, as the environment tells them: `$REGISTRY_AUTH_FILE`; `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`; `containers/auth.json` in `$XDG_RUNTIME_DIR` and in `$XDG_CONFIG_HOME` or `~/.config`.
    pub fn from_env() -> Self {
        Self::from_vars(|name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        })
    }

    /// One file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            files: vec![path.into()],
        }
    }

    /// Where it looks, in this order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn from_vars(var: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let home = var("HOME");
        let under_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let candidates = [
            var("REGISTRY_AUTH_FILE"),
            var("DOCKER_CONFIG")
                .or_else(|| under_home(".docker"))
                .map(|dir| dir.join("config.json")),
            var("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            var("XDG_CONFIG_HOME")
                .or_else(|| under_home(".config"))
                .map(|dir| dir.join("containers/auth.json")),
        ];
        Self {
            files: candidates.into_iter().flatten().collect(),
        }
    }

    fn find(&self, host: &str, repository: &str) -> Result<Credential> {
        for path in &self.files {
            let found = read(path)
                .and_then(|config| config.map_or(Ok(None), |config| config.find(host, repository)))
                .map_err(|reason| Error::Credentials {
                    registry: host.to_owned(),
                    reason: format!("{}: {reason}", path.display()),
                })?;
            if let Some(credential) = found {
                return Ok(credential);
            }
        }
        Ok(Credential::Anonymous)
    }
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn credential(&self, host: &str, repository: &str) -> Result<Credential> {
        let (this, host, repository) = (self.clone(), host.to_owned(), repository.to_owned());
        let registry = host.clone();
        tokio::task::spawn_blocking(move || this.find(&host, &repository))
            .await
            .map_err(|error| Error::Credentials {
                registry,
                reason: error.to_string(),
            })?
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl Config {
    fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>, String> {
        let own_helper = self
            .cred_helpers
            .iter()
            .find(|(key, _)| names(key, host))
            .map(|(_, name)| name);
        if let Some(name) = own_helper.or(self.creds_store.as_ref()).filter(|name| !name.is_empty()) {
            let server = if is_docker_hub(host) { DOCKER_HUB } else { host };
            if let Some(credential) = helper::ask(name, server)? {
                return Ok(Some(credential));
            }
        }
        let part = parts(host, repository).find_map(|key| self.auths.get(&key));
        let of_host = || {
            self.auths.get(host).or_else(|| {
                self.auths
                    .iter()
                    .find(|(key, _)| names(key, host))
                    .map(|(_, entry)| entry)
            })
        };
        part.or_else(of_host).map_or(Ok(None), Entry::credential)
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let given = !self.username.is_empty();
            return Ok(given.then(|| Credential::basic(self.username.clone(), self.password.clone())));
        }
        let decoded = STANDARD
            .decode(self.auth.trim())
            .or_else(|_| STANDARD_NO_PAD.decode(self.auth.trim()))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or("an 'auth' is not base64")?;
        // Docker pads old entries with zero bytes.
        let (username, password) = decoded
            .trim_end_matches('\0')
            .split_once(':')
            .ok_or("an 'auth' is not user:password")?;
        Ok(Some(Credential::basic(username, password)))
    }
}

fn is_docker_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// Podman's keys for the parts of a registry that a repository lies in, the longest first.
fn parts(host: &str, repository: &str) -> impl Iterator<Item = String> {
    let host = if is_docker_hub(host) { "docker.io" } else { host };
    let whole = (!repository.is_empty()).then(|| format!("{host}/{repository}"));
    let least = host.len();
    std::iter::successors(whole, move |key| {
        let slash = key.rfind('/').filter(|slash| *slash > least)?;
        Some(key[..slash].to_owned())
    })
}

/// Whether a key of the file is for this host. Keys are hosts, or URLs of a registry's API.
fn names(key: &str, host: &str) -> bool {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    key == host || (is_docker_hub(host) && is_docker_hub(key))
}

fn read(path: &Path) -> Result<Option<Config>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("can't be opened ({error})")),
    };
    let mut text = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut text);
    read.map_err(|error| format!("can't be read ({error})"))?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    // The parser's own message could quote a secret.
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| {
        format!(
            "is not Docker's JSON (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, host: &str) -> Result<Credential> {
        find_for(json, host, "some/app")
    }

    fn find_for(json: &str, host: &str, repository: &str) -> Result<Credential> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        DockerConfig::file(path).find(host, repository)
    }

    #[test]
    fn parts_of_registries() {
        let entry = |user: &str| format!(r#"{{"username":"{user}","password":"p"}}"#);
        let keys = [
            "quay.io",
            "quay.io/team",
            "quay.io/team/app",
            "docker.io/me",
            "r.example:5000/a",
            "docker.io",
            "https://index.docker.io/v1/",
        ];
        let auths: Vec<_> = keys.iter().map(|key| format!(r#""{key}":{}"#, entry(key))).collect();
        let json = format!(r#"{{"auths":{{{}}}}}"#, auths.join(","));
        for (host, repository, expected) in [
            ("quay.io", "team/app", Some("quay.io/team/app")),
            ("quay.io", "team/app/part", Some("quay.io/team/app")),
            ("quay.io", "team/application", Some("quay.io/team")),
            ("quay.io", "teams/app", Some("quay.io")),
            ("quay.io", "team", Some("quay.io/team")),
            ("docker.io", "me/app", Some("docker.io/me")),
            ("docker.io", "library/alpine", Some("docker.io")),
            ("r.example:5000", "a/b", Some("r.example:5000/a")),
            ("r.example:5000", "b", None),
            ("r.example", "a/b", None),
        ] {
            let wanted = expected.map_or(Credential::Anonymous, |user| Credential::basic(user, "p"));
            assert!(
                find_for(&json, host, repository).unwrap() == wanted,
                "{host}/{repository}"
            );
        }
    }

    #[test]
    fn entries() {
        // me:secret, a:b:c
        let json = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},
            "r.example:5000":{"auth":"YTpiOmM="},
            "https://url.example/v2/":{"username":"u","password":"p"},
            "token.example":{"auth":"bWU6c2VjcmV0","identitytoken":"refresh"},
            "quay.io/team":{"auth":"bWU6c2VjcmV0"},
            "empty.example":{}},
            "HttpHeaders":{"x":"y"}}"#;
        for (host, expected) in [
            ("docker.io", Credential::basic("me", "secret")),
            ("r.example:5000", Credential::basic("a", "b:c")),
            ("r.example", Credential::Anonymous),
            ("url.example", Credential::basic("u", "p")),
            ("token.example", Credential::IdentityToken("refresh".into())),
            ("quay.io", Credential::Anonymous),
            ("empty.example", Credential::Anonymous),
            ("evil.docker.io", Credential::Anonymous),
        ] {
            assert!(find(json, host).unwrap() == expected, "{host}");
        }
    }

    #[test]
    fn bad_files_are_errors_without_secrets() {
        for json in [
            "{",
            r#"{"auths":{"h":{"auth":"!secret!"}}}"#,
            r#"{"auths":{"h":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":"secret"}"#,
        ] {
            let error = find(json, "h").unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Unauthorized);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        assert!(find("", "h").unwrap() == Credential::Anonymous);
        assert!(DockerConfig::file("/nonexistent/x").find("h", "a").unwrap() == Credential::Anonymous);
    }

    #[test]
    fn helper_names_are_not_paths() {
        for name in ["../x", "a/b", "a b", "é"] {
            assert!(find(&format!(r#"{{"credsStore":"{name}"}}"#), "h").is_err(), "{name}");
        }
        let missing = find(r#"{"credHelpers":{"h":"no-such-helper"}}"#, "h").unwrap_err();
        assert!(
            missing.to_string().contains("docker-credential-no-such-helper"),
            "{missing}"
        );
    }

    #[test]
    fn places() {
        let places = |vars: &[(&str, &str)]| {
            let config = DockerConfig::from_vars(|name| {
                vars.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| PathBuf::from(value))
            });
            config
                .files
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(places(&[]), "");
        assert_eq!(
            places(&[("HOME", "/h")]),
            "/h/.docker/config.json /h/.config/containers/auth.json"
        );
        assert_eq!(
            places(&[
                ("HOME", "/h"),
                ("DOCKER_CONFIG", "/d"),
                ("XDG_RUNTIME_DIR", "/r"),
                ("REGISTRY_AUTH_FILE", "/a")
            ]),
            "/a /d/config.json /r/containers/auth.json /h/.config/containers/auth.json"
        );
    }
}
