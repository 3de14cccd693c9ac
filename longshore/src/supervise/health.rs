use std::time::Duration;

use longshore_content::ContentStoreExt;
use longshore_runtime::ExitStatus;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::At;
use crate::image::DOCUMENT_LIMIT;
use crate::{Container, Engine, Error, ErrorKind, Image, Result};

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
        let Some(given) = config.config.healthcheck else {
            return Ok(None);
        };
        let command = match given.test.split_first() {
            None => return Ok(None),
            Some((how, _)) if how == "NONE" => return Ok(None),
            Some((how, command)) if how == "CMD" && !command.is_empty() => command.to_vec(),
            Some((how, [line])) if how == "CMD-SHELL" => {
                let mut shell = config.config.shell.unwrap_or_default();
                if shell.is_empty() {
                    shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                }
                shell.push(line.clone());
                shell
            }
            Some(_) => {
                return Err(format!(
                    "config.Healthcheck.Test is {:?}, not [\"CMD\", ...] or [\"CMD-SHELL\", LINE]",
                    given.test
                ));
            }
        };
        let default = Self::new(command);
        let or = |given: u64, default| {
            if given == 0 {
                default
            } else {
                Duration::from_nanos(given)
            }
        };
        Ok(Some(Self {
            interval: or(given.interval, default.interval),
            timeout: or(given.timeout, default.timeout),
            start_period: Duration::from_nanos(given.start_period),
            start_interval: or(given.start_interval, default.start_interval),
            retries: if given.retries == 0 {
                default.retries
            } else {
                given.retries
            },
            ..default
        }))
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
#[derive(Deserialize)]
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

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// No check has counted yet.
    Starting,
    /// The last check succeeded, or too few in a row have failed since one did.
    Healthy,
    /// So many checks in a row have failed.
    Unhealthy {
        /// How many.
        failures: u32,
    },
}

/// What is known of a container's health, check by check.
#[derive(Debug, Clone, Copy)]
struct Record {
    health: Health,
    failures: u32,
}

impl Record {
    const NEW: Self = Self {
        health: Health::Starting,
        failures: 0,
    };

    /// After one more check. `counts`: whether a failure does.
    fn after(self, succeeded: Succeeded, counts: Counts, retries: u32) -> Self {
        match (succeeded, counts) {
            (Succeeded::Yes, _) => Self {
                health: Health::Healthy,
                failures: 0,
            },
            (Succeeded::No, Counts::No) => self,
            (Succeeded::No, Counts::Yes) => {
                let failures = self.failures.saturating_add(1);
                let health = if failures >= retries.max(1) {
                    Health::Unhealthy { failures }
                } else {
                    self.health
                };
                Self { health, failures }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Succeeded {
    Yes,
    No,
}

/// Whether a failed check does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    Yes,
    No,
}

/// Checks of a container that go on until this is dropped, or the container is deleted. While it does not run nothing is checked, and each run begins as
/// [`Starting`](Health::Starting).
#[derive(Debug)]
#[must_use = "dropping it ends the checks"]
pub struct HealthWatch {
    health: watch::Receiver<Health>,
    task: JoinHandle<()>,
}

impl HealthWatch {
    /// How the container is.
    pub fn now(&self) -> Health {
        *self.health.borrow()
    }

    /// Waits until that changes, to anything that it was not when it was asked for last. `None` when the checks have ended.
    pub async fn changed(&mut self) -> Option<Health> {
        self.health.changed().await.ok()?;
        Some(*self.health.borrow_and_update())
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.task.abort();
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

impl Container {
    /// Checks its health, from now on.
    pub fn watch_health(&self, check: HealthCheck) -> HealthWatch {
        let (sender, health) = watch::channel(Health::Starting);
        let container = self.clone();
        HealthWatch {
            health,
            task: tokio::spawn(async move { container.check_on(&check, &sender).await }),
        }
    }

    async fn check_on(&self, check: &HealthCheck, health: &watch::Sender<Health>) {
        let (mut record, mut begun, mut run) = (Record::NEW, Instant::now(), None);
        loop {
            let starting = begun.elapsed() < check.start_period;
            let early = starting && record.health == Health::Starting;
            tokio::time::sleep(if early {
                check.start_interval.min(check.interval)
            } else {
                check.interval
            })
            .await;
            let now = match self.state().await {
                Err(error) if error.kind() == ErrorKind::NotFound && self.record().await.is_err() => return,
                Ok(state) if state.status == longshore_runtime::Status::Running => state.pid,
                _ => None,
            };
            if now != run {
                (record, begun, run) = (Record::NEW, Instant::now(), now);
            }
            if run.is_some() {
                let succeeded = self.check_once(check).await;
                let counts = if begun.elapsed() < check.start_period {
                    Counts::No
                } else {
                    Counts::Yes
                };
                record = record.after(succeeded, counts, check.retries);
            }
            health.send_if_modified(|health| std::mem::replace(health, record.health) != record.health);
        }
    }

    async fn check_once(&self, check: &HealthCheck) -> Succeeded {
        let outcome = self.run_check(check).await;
        self.engine
            .senses
            .metrics
            .health_checked(crate::senses::outcome_of(&outcome));
        match outcome {
            Ok(()) => Succeeded::Yes,
            Err(why) => {
                tracing::debug!(container = self.id(), why, "a health check failed");
                Succeeded::No
            }
        }
    }

    async fn run_check(&self, check: &HealthCheck) -> Result<(), String> {
        let command = self.command(check.command.clone());
        let name = command.name().to_owned();
        let pid = command.spawn().await.map_err(|error| error.to_string())?;
        match tokio::time::timeout(check.timeout, self.wait_exec(&name)).await {
            Ok(Ok(ExitStatus { code: 0, .. })) => Ok(()),
            Ok(Ok(status)) => Err(format!("it ended with {}", status.code)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                self.kill_process(pid).await;
                Err("it took too long".to_owned())
            }
        }
    }

    /// Kills a process of the container: the pid may be another one's by now, but whoever has it when it is looked up among the container's is its own.
    async fn kill_process(&self, pid: u32) {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(Ok(process)) = process.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return;
        };
        if self.processes().await.is_ok_and(|all| all.contains(&pid)) {
            // If it has ended there is nothing to kill.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
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

    #[test]
    fn failures_count_in_a_row_and_after_the_start_period() {
        use {Counts as C, Succeeded as S};
        let early = Record::NEW.after(S::No, C::No, 2);
        assert_eq!((early.health, early.failures), (Health::Starting, 0));
        let one = early.after(S::No, C::Yes, 2);
        assert_eq!(one.health, Health::Starting);
        let two = one.after(S::No, C::Yes, 2);
        assert_eq!(two.health, Health::Unhealthy { failures: 2 });
        let well = two.after(S::Yes, C::No, 2);
        assert_eq!(well.health, Health::Healthy);
        assert_eq!(well.after(S::No, C::Yes, 2).health, Health::Healthy);
    }
}
