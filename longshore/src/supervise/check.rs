use std::time::Duration;

use longshore_content::ContentStoreExt;
use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::image::DOCUMENT_LIMIT;
use crate::{Container, ContainerBuilder, Engine, Error, ErrorKind, Image, Result};

/// The fact on a container's record that holds its health check, in the form of an image's config.
const CHECK: &str = "longshore.health-check";

/// How a container is asked whether it is well: a command in it that ends with 0 if so. The defaults are Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The time between the end of a check and the next one.
    pub interval: Duration,
    /// A check that takes longer has failed, and is killed.
    pub timeout: Duration,
    /// For so long after the first check was due, failures do not count.
    pub start_period: Duration,
    /// The time between checks while failures do not count and none has succeeded.
    pub start_interval: Duration,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

impl HealthCheck {
    /// A check by a command, every 30 seconds, of 30 seconds at most; the third failure in a row counts.
    pub fn new<A: Into<String>>(command: impl IntoIterator<Item = A>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
            retries: 3,
        }
    }

    /// What the config of an image says (Docker's `HEALTHCHECK`), which the image specification leaves to Docker; `None` when it says nothing, or `NONE`.
    fn from_config(config: &[u8]) -> Result<Option<Self>, String> {
        let config: Config = serde_json::from_slice(config).map_err(|error| error.to_string())?;
        let shell = config.config.shell.unwrap_or_default();
        config.config.healthcheck.map_or(Ok(None), |given| given.check(shell))
    }

    /// The same form, for the container's own record.
    fn to_given(&self) -> Given {
        // 0 would be read as the default.
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let test = std::iter::once("CMD".to_owned()).chain(self.command.iter().cloned());
        Given {
            test: test.collect(),
            interval: nanos(self.interval),
            timeout: nanos(self.timeout),
            start_period: nanos(self.start_period),
            start_interval: nanos(self.start_interval),
            retries: self.retries.max(1),
        }
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: Inner,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inner {
    healthcheck: Option<Given>,
    shell: Option<Vec<String>>,
}

/// Times in nanoseconds; 0 is the default.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(default)]
    test: Vec<String>,
    #[serde(default)]
    interval: u64,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    start_period: u64,
    #[serde(default)]
    start_interval: u64,
    #[serde(default)]
    retries: u32,
}

impl Given {
    fn check(self, mut shell: Vec<String>) -> Result<Option<HealthCheck>, String> {
        let command = match self.test.split_first() {
            None => return Ok(None),
            Some((how, _)) if how == "NONE" => return Ok(None),
            Some((how, command)) if how == "CMD" && !command.is_empty() => command.to_vec(),
            Some((how, [line])) if how == "CMD-SHELL" => {
                if shell.is_empty() {
                    shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                }
                shell.push(line.clone());
                shell
            }
            Some(_) => {
                return Err(format!(
                    "config.Healthcheck.Test is {:?}, not [\"CMD\", ...] or [\"CMD-SHELL\", LINE]",
                    self.test
                ));
            }
        };
        let default = HealthCheck::new(command);
        let or = |given: u64, default| match given {
            0 => default,
            given => Duration::from_nanos(given),
        };
        Ok(Some(HealthCheck {
            interval: or(self.interval, default.interval),
            timeout: or(self.timeout, default.timeout),
            start_period: Duration::from_nanos(self.start_period),
            start_interval: or(self.start_interval, default.start_interval),
            retries: match self.retries {
                0 => default.retries,
                given => given,
            },
            ..default
        }))
    }
}

impl ContainerBuilder {
    /// How it is asked whether it is well, instead of what its image says ([`Container::health_check`]).
    pub fn health_check(self, check: &HealthCheck) -> Self {
        let check = serde_json::to_value(check.to_given()).expect("words and numbers are JSON");
        self.extension(CHECK, check)
    }
}

impl Container {
    /// How it is asked whether it is well: what it was [given](ContainerBuilder::health_check) when it was made, or else what its image says, if that is still here. Nobody asks
    /// unless [told to](Self::watch_health), or for another container that [needs](ContainerBuilder::depends_on) it to be well.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist; [`Invalid`](crate::ErrorKind::Invalid) when its record or its image says what is no check.
    pub async fn health_check(&self) -> Result<Option<HealthCheck>> {
        let record = self.record().await?;
        let Some(given) = record.extensions.get(CHECK) else {
            return match self.engine.image(&record.image).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                image => self.engine.health_check(&image?).await,
            };
        };
        let given = serde_json::from_value(given.clone()).map_err(|error| error.to_string());
        given
            .and_then(|given: Given| given.check(Vec::new()))
            .map_err(|reason| Error::Invalid {
                what: format!("the health check '{CHECK}' on the record of container '{}'", self.id()),
                reason,
            })
    }
}

impl Engine {
    /// The check that an image asks for, if it asks for one.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when its config says what is no check; [`NotFound`](ErrorKind::NotFound) when the config is gone.
    pub async fn health_check(&self, image: &Image) -> Result<Option<HealthCheck>> {
        let doing = format!("reading the health check of image {}", image.name());
        let digest = image.manifest().config().digest();
        let config = self.content.read(digest, DOCUMENT_LIMIT).await.at(&doing)?;
        HealthCheck::from_config(&config).map_err(|reason| Error::Invalid { what: doing, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(healthcheck: serde_json::Value) -> Result<Option<HealthCheck>, String> {
        HealthCheck::from_config(
            json!({ "config": { "Healthcheck": healthcheck } })
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn what_a_record_holds_is_the_check() {
        let mut check = HealthCheck::new(["/ask", "me"]);
        (check.interval, check.retries) = (Duration::from_millis(5), 2);
        let given: Given = serde_json::from_value(json!(check.to_given())).expect("its own form");
        let mut read = given.check(Vec::new()).expect("valid").expect("a check");
        // A start period of nothing is written as next to nothing.
        read.start_period = check.start_period;
        assert_eq!(read, check);
    }

    #[test]
    fn a_config_s_check_is_read() {
        let second = 1_000_000_000_u64;
        let check =
            read(json!({ "Test": ["CMD", "/ask", "me"], "Interval": 7 * second, "Retries": 9, "StartPeriod": second }));
        let check = check.expect("valid").expect("a check");
        assert_eq!(check.command, ["/ask", "me"]);
        assert_eq!(
            (check.interval.as_secs(), check.timeout.as_secs(), check.retries),
            (7, 30, 9)
        );
        assert_eq!(check.start_period.as_secs(), 1);

        let line = read(json!({ "Test": ["CMD-SHELL", "a || b"] }))
            .expect("valid")
            .expect("a check");
        assert_eq!(line.command, ["/bin/sh", "-c", "a || b"]);
        let shell =
            json!({ "config": { "Shell": ["/bin/bash", "-lc"], "Healthcheck": { "Test": ["CMD-SHELL", "a"] } } });
        let shell = HealthCheck::from_config(shell.to_string().as_bytes())
            .expect("valid")
            .expect("a check");
        assert_eq!(shell.command, ["/bin/bash", "-lc", "a"]);

        for none in [
            json!({}),
            json!({ "Test": [] }),
            json!({ "Test": ["NONE"] }),
            json!(null),
        ] {
            assert_eq!(read(none.clone()), Ok(None), "{none}");
        }
        assert_eq!(HealthCheck::from_config(b"{}"), Ok(None));
        for bad in [
            json!({ "Test": ["CMD"] }),
            json!({ "Test": ["CMD-SHELL", "a", "b"] }),
            json!({ "Test": ["ask"] }),
        ] {
            let error = read(bad.clone()).expect_err("invalid");
            assert!(error.contains("Healthcheck.Test"), "{error}");
        }
    }
}
