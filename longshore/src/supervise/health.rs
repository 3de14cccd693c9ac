use longshore_runtime::ExitStatus;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::check::HealthCheck;
use crate::{Container, Error, ErrorKind, Result};

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

    /// Asks it once, now, whether it is well. It counts for no [watch](Self::watch_health).
    ///
    /// # Errors
    /// [`FailedPrecondition`](ErrorKind::FailedPrecondition) unless it runs.
    pub async fn is_well(&self, check: &HealthCheck) -> Result<bool> {
        let status = self.state().await?.status;
        if status != longshore_runtime::Status::Running {
            return Err(Error::Unmet {
                what: format!("asking container '{}' whether it is well", self.id()),
                reason: format!("it is {status}, and only one that runs can answer"),
            });
        }
        Ok(self.check_once(check).await == Succeeded::Yes)
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
