//! From a path to what is asked for.

use http::StatusCode;
use oci_spec::image::Digest;

use crate::answer::Refusal;
use crate::name;

/// What a path names. Endpoints are those of the distribution specification, plus Docker's catalogue and the token
/// endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Token,
    Catalogue,
    Tags { repository: String },
    Manifest { repository: String, reference: Reference },
    Blob { repository: String, digest: Digest },
    Referrers { repository: String, digest: Digest },
    Uploads { repository: String },
    Upload { repository: String, id: String },
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Route {
    /// Reads a path. `None` when nothing is served there.
    pub(crate) fn parse(path: &str) -> Result<Option<Self>, Refusal> {
        match path {
            "/v2" | "/v2/" => return Ok(Some(Self::Base)),
            "/token" => return Ok(Some(Self::Token)),
            "/v2/_catalog" => return Ok(Some(Self::Catalogue)),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Ok(None);
        };
        let segments: Vec<&str> = rest.split('/').collect();
        // A name may contain anything that follows it, so the end of the path decides.
        let (repository, route) = match *segments.as_slice() {
            [ref name @ .., "blobs", "uploads", id] => (name, Tail::Upload(id)),
            [ref name @ .., "blobs", "uploads"] => (name, Tail::Upload("")),
            [ref name @ .., "tags", "list"] => (name, Tail::Tags),
            [ref name @ .., "manifests", reference] => (name, Tail::Manifest(reference)),
            [ref name @ .., "blobs", digest] => (name, Tail::Blob(digest)),
            [ref name @ .., "referrers", digest] => (name, Tail::Referrers(digest)),
            _ => return Ok(None),
        };
        let repository = repository.join("/");
        if !name::is_repository(&repository) {
            let message = format!("'{repository}' is not a valid repository name");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message));
        }
        Ok(Some(match route {
            Tail::Upload("") => Self::Uploads { repository },
            Tail::Upload(id) => Self::Upload {
                repository,
                id: id.into(),
            },
            Tail::Tags => Self::Tags { repository },
            Tail::Manifest(reference) => Self::Manifest {
                repository,
                reference: Reference::parse(reference)?,
            },
            Tail::Blob(digest) => Self::Blob {
                repository,
                digest: parse_digest(digest)?,
            },
            Tail::Referrers(digest) => Self::Referrers {
                repository,
                digest: parse_digest(digest)?,
            },
        }))
    }

    /// The repository, if it names one.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            Self::Base | Self::Token | Self::Catalogue => None,
            Self::Tags { repository }
            | Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Referrers { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. } => Some(repository),
        }
    }
}

enum Tail<'a> {
    Upload(&'a str),
    Tags,
    Manifest(&'a str),
    Blob(&'a str),
    Referrers(&'a str),
}

impl Reference {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') || text.contains("%3A") {
            return parse_digest(text).map(Self::Digest);
        }
        if name::is_tag(text) {
            return Ok(Self::Tag(text.into()));
        }
        // The specification has no code for a bad tag; no manifest can have it.
        Err(Refusal::unknown_manifest(format!("'{text}'")))
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "'{tag}'"),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    let plain = text.replace("%3A", ":").replace("%3a", ":");
    let digest = Digest::try_from(plain).map_err(|_| Refusal::bad_digest(text))?;
    longshore_content::Hasher::new(digest.algorithm()).map_err(|_| Refusal::bad_digest(text))?;
    Ok(digest)
}

/// One value of a query string, decoded.
pub(crate) fn query(query: Option<&str>, key: &str) -> Option<String> {
    queries(query, key).next()
}

/// All values of a key, decoded.
pub(crate) fn queries<'a>(query: Option<&'a str>, key: &'a str) -> impl Iterator<Item = String> + 'a {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(move |(name, _)| name == key)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<Route> {
        Route::parse(path).unwrap()
    }

    #[test]
    fn paths() {
        let repository = || "a/b".to_owned();
        let text = format!("sha256:{}", "0".repeat(64));
        let digest = || Digest::try_from(text.as_str()).unwrap();
        assert_eq!(parse("/v2/"), Some(Route::Base));
        assert_eq!(
            parse("/v2/a/b/tags/list"),
            Some(Route::Tags {
                repository: repository()
            })
        );
        assert_eq!(
            parse("/v2/a/b/manifests/1.0"),
            Some(Route::Manifest {
                repository: repository(),
                reference: Reference::Tag("1.0".into())
            })
        );
        assert_eq!(
            parse(&format!("/v2/a/b/manifests/{text}")),
            Some(Route::Manifest {
                repository: repository(),
                reference: Reference::Digest(digest())
            })
        );
        assert_eq!(
            parse(&format!("/v2/a/b/blobs/{text}")),
            Some(Route::Blob {
                repository: repository(),
                digest: digest()
            })
        );
        assert_eq!(
            parse("/v2/a/b/blobs/uploads/"),
            Some(Route::Uploads {
                repository: repository()
            })
        );
        assert_eq!(
            parse("/v2/a/b/blobs/uploads"),
            Some(Route::Uploads {
                repository: repository()
            })
        );
        assert_eq!(
            parse("/v2/a/b/blobs/uploads/id1"),
            Some(Route::Upload {
                repository: repository(),
                id: "id1".into()
            })
        );
        assert_eq!(
            parse("/v2/manifests/manifests/latest").unwrap().repository(),
            Some("manifests"),
            "a repository may be called like an endpoint"
        );
        for nothing in ["/", "/v1/", "/v2/a", "/v2/a/b/c"] {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn bad_paths() {
        for (path, code) in [
            ("/v2/A/tags/list", "NAME_INVALID"),
            ("/v2/../manifests/latest", "NAME_INVALID"),
            ("/v2//manifests/latest", "NAME_INVALID"),
            ("/v2/a/blobs/sha256:abc", "DIGEST_INVALID"),
            ("/v2/a/blobs/md5:0123456789abcdef", "DIGEST_INVALID"),
            ("/v2/a/manifests/-tag", "MANIFEST_UNKNOWN"),
        ] {
            assert_eq!(Route::parse(path).unwrap_err().code, code, "{path}");
        }
    }
}
