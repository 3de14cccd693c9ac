//! The client's errors as ours.

use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_spec::distribution::Reference;

use crate::Error;

/// How much of what a registry says is shown.
const MAX_REASON: usize = 400;

/// A question, for the error that its answer may be.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    action: &'static str,
    registry: String,
    repository: String,
    what: String,
}

impl Asking {
    pub(super) fn new(action: &'static str, reference: &Reference, what: &str) -> Self {
        Self {
            action,
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            what: what.to_owned(),
        }
    }

    /// What was answered, as an error of ours. No address is in it: one that was redirected to may carry a signature.
    pub(super) fn failed(&self, error: OciDistributionError) -> Error {
        use OciDistributionError as Theirs;
        match error {
            Theirs::RegistryError { envelope, .. } => {
                let code = envelope.errors.first().map(|first| &first.code);
                let reason = shown(&envelope.to_string());
                match code {
                    Some(
                        OciErrorCode::BlobUnknown
                        | OciErrorCode::ManifestUnknown
                        | OciErrorCode::ManifestBlobUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound,
                    ) => self.not_found(),
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => self.denied(reason),
                    _ => self.transport(reason.into()),
                }
            }
            Theirs::ServerError { code: 404, .. } | Theirs::ImageManifestNotFoundError(_) => self.not_found(),
            Theirs::ServerError { code, message, .. } => self.status(code, shown(&message)),
            Theirs::UnauthorizedError { .. } => self.denied("it gave no reason".into()),
            Theirs::AuthenticationFailure(reason) => self.denied(shown(&reason)),
            Theirs::DigestError(DigestError::VerificationError { expected, actual }) => Error::DigestMismatch {
                what: self.what.clone(),
                registry: self.registry.clone(),
                expected,
                actual,
            },
            Theirs::RequestError(error) => match error.status() {
                Some(status) => self.status(status.as_u16(), "it gave no reason".into()),
                None => self.transport(error.without_url().into()),
            },
            Theirs::IoError(error) => self.broken(error),
            other => Error::Protocol {
                registry: self.registry.clone(),
                what: self.what.clone(),
                reason: shown(&other.to_string()),
            },
        }
    }

    /// A stream's failure: ours, when it was of what is pushed, the client's proof, or the connection's.
    fn broken(&self, error: std::io::Error) -> Error {
        let error = match error.downcast::<longshore_content::Error>() {
            Ok(source) => {
                return Error::Content {
                    what: self.what.clone(),
                    source,
                };
            }
            Err(error) => error,
        };
        let error = match error.downcast::<DigestError>() {
            Ok(error) => return self.failed(error.into()),
            Err(error) => error,
        };
        match error.downcast::<reqwest::Error>() {
            Ok(error) => self.transport(error.without_url().into()),
            Err(error) => self.transport(error.into()),
        }
    }

    fn not_found(&self) -> Error {
        Error::NotFound {
            what: self.what.clone(),
            registry: self.registry.clone(),
        }
    }

    fn denied(&self, reason: String) -> Error {
        Error::Unauthorized {
            registry: self.registry.clone(),
            action: self.action,
            repository: self.repository.clone(),
            reason,
        }
    }

    fn status(&self, status: u16, reason: String) -> Error {
        match status {
            404 => self.not_found(),
            401 | 403 => self.denied(reason),
            _ => Error::Status {
                registry: self.registry.clone(),
                status,
                request: self.request(),
                reason,
            },
        }
    }

    fn transport(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::Transport {
            registry: self.registry.clone(),
            request: self.request(),
            source,
        }
    }

    fn request(&self) -> String {
        format!("the {} of {}", self.action, self.what)
    }
}

/// The beginning of a text, made fit to be shown.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use oci_client::errors::{OciEnvelope, OciError};

    use super::*;
    use crate::ErrorKind;

    fn failed(error: OciDistributionError) -> Error {
        let reference = "registry.example/team/app:1".parse().unwrap();
        Asking::new("pull", &reference, "the manifest").failed(error)
    }

    #[test]
    fn each_is_of_the_kind_that_callers_branch_on() {
        let told = |code| OciDistributionError::RegistryError {
            envelope: OciEnvelope {
                errors: vec![OciError {
                    code,
                    message: "said\u{1b}[31m".into(),
                    detail: serde_json::Value::Null,
                }],
            },
            url: "https://cdn.example/?signature=secret".into(),
        };
        let answered = |code| OciDistributionError::ServerError {
            code,
            url: "https://cdn.example/?signature=secret".into(),
            message: "x".repeat(5000),
        };
        let broken = || DigestError::VerificationError {
            expected: "sha256:a".into(),
            actual: "sha256:b".into(),
        };
        let store = longshore_content::Error::UnsupportedAlgorithm("md5".into());
        for (error, kind) in [
            (told(OciErrorCode::ManifestUnknown), ErrorKind::NotFound),
            (told(OciErrorCode::NameUnknown), ErrorKind::NotFound),
            (told(OciErrorCode::Denied), ErrorKind::Unauthorized),
            (told(OciErrorCode::Toomanyrequests), ErrorKind::Unavailable),
            (answered(404), ErrorKind::NotFound),
            (answered(403), ErrorKind::Unauthorized),
            (answered(500), ErrorKind::Unavailable),
            (broken().into(), ErrorKind::Verification),
            (
                OciDistributionError::AuthenticationFailure("no".into()),
                ErrorKind::Unauthorized,
            ),
            (OciDistributionError::RegistryNoDigestError, ErrorKind::Protocol),
            (std::io::Error::other("cut").into(), ErrorKind::Unavailable),
            (std::io::Error::other(store).into(), ErrorKind::Content),
            (std::io::Error::other(broken()).into(), ErrorKind::Verification),
        ] {
            let error = failed(error);
            assert_eq!(error.kind(), kind, "{error:?}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("secret"), "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
            assert!(text.len() < 2 * MAX_REASON + 500, "{} characters", text.len());
        }
    }
}
