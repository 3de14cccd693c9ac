use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use longshore_runtime::ExitStatus;

use crate::Error;

/// The first wait before a restart; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A container that ran for so long had started well: the next wait is the first one again.
const STARTED_WELL: Duration = Duration::from_secs(10);

/// When a container that has ended is started again. Written and read as Docker does: `no`, `always`, `on-failure`, `on-failure:3`, `unless-stopped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Whatever its status, until it is [stopped](crate::Container::stop); and again when the supervision is taken up anew.
    Always,
    /// When its status is not 0.
    OnFailure {
        /// How often, at most; `None` is without an end.
        at_most: Option<NonZeroU32>,
    },
    /// As [`Always`](Self::Always), but one that was stopped stays so when the supervision is taken up anew.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether a container that ended by itself, after so many restarts, is started again.
    pub fn restarts_after(self, ended: &ExitStatus, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure { at_most } => ended.code != 0 && at_most.is_none_or(|most| restarts < most.get()),
        }
    }

    /// Whether a container that is found ended, when the supervision is taken up anew, is started again. How it ended is not known after the
    /// machine was restarted; it was no success then.
    pub fn restarts_anew(self, stopped: Stopped, ended: Option<&ExitStatus>) -> bool {
        match (self, stopped) {
            (Self::No, _) => false,
            (Self::Always, _) | (Self::UnlessStopped, Stopped::No) => true,
            (Self::OnFailure { .. }, Stopped::No) => ended.is_none_or(|ended| ended.code != 0),
            (Self::UnlessStopped | Self::OnFailure { .. }, Stopped::Yes) => false,
        }
    }
}

/// Whether somebody stopped the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Stopped {
    /// By [`Container::stop`](crate::Container::stop), since its last start.
    Yes,
    /// If it ended, it did by itself.
    No,
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::Always => f.write_str("always"),
            Self::OnFailure { at_most: None } => f.write_str("on-failure"),
            Self::OnFailure { at_most: Some(most) } => write!(f, "on-failure:{most}"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Invalid {
            what: format!("restart policy '{text}'"),
            reason: "it is no, always, on-failure, on-failure:N (N restarts at most, from 1) or unless-stopped"
                .to_owned(),
        };
        match text.split_once(':') {
            None => match text {
                "no" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "on-failure" => Ok(Self::OnFailure { at_most: None }),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(invalid()),
            },
            Some(("on-failure", most)) => {
                let at_most = Some(most.parse().map_err(|_| invalid())?);
                Ok(Self::OnFailure { at_most })
            }
            Some(_) => Err(invalid()),
        }
    }
}

/// How long to wait before the next restart: from a tenth of a second, doubled each time, to a minute.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The wait after a container that ran for so long.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if ran < STARTED_WELL => (last * 2).min(LONGEST_WAIT),
            _ => FIRST_WAIT,
        };
        self.last = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: u32) -> ExitStatus {
        let at = std::time::SystemTime::UNIX_EPOCH;
        serde_json::from_value(serde_json::json!({ "code": code, "at": at })).expect("a status")
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["no", "always", "on-failure", "on-failure:3", "unless-stopped"] {
            let policy: RestartPolicy = text.parse().expect(text);
            assert_eq!(policy.to_string(), text);
        }
        for text in [
            "",
            "never",
            "on-failure:",
            "on-failure:0",
            "on-failure:-1",
            "always:1",
            "No",
        ] {
            let error = text.parse::<RestartPolicy>().expect_err(text).to_string();
            assert!(
                error.contains(&format!("'{text}'")) && error.contains("unless-stopped"),
                "{error}"
            );
        }
    }

    #[test]
    fn each_policy_restarts_what_it_says() {
        let policy = |text: &str| text.parse::<RestartPolicy>().expect("a policy");
        let after = |text, code, restarts| policy(text).restarts_after(&ended(code), restarts);
        assert!(!after("no", 1, 0) && after("always", 0, 9) && after("unless-stopped", 0, 9));
        assert!(after("on-failure", 1, 1_000) && !after("on-failure", 0, 0));
        assert!(after("on-failure:2", 137, 1) && !after("on-failure:2", 137, 2));

        let anew = |text, stopped, code: Option<u32>| policy(text).restarts_anew(stopped, code.map(ended).as_ref());
        assert!(anew("always", Stopped::Yes, Some(0)) && !anew("no", Stopped::No, Some(1)));
        assert!(anew("unless-stopped", Stopped::No, Some(0)) && !anew("unless-stopped", Stopped::Yes, Some(1)));
        assert!(anew("on-failure", Stopped::No, None) && anew("on-failure", Stopped::No, Some(1)));
        assert!(!anew("on-failure", Stopped::No, Some(0)) && !anew("on-failure", Stopped::Yes, Some(1)));
    }

    #[test]
    fn waits_double_to_a_minute_and_begin_anew_after_a_good_start() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(5);
        let waits: Vec<u128> = (0..12).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[9..], [51_200, 60_000, 60_000]);
        assert_eq!(backoff.after(STARTED_WELL), FIRST_WAIT);
        assert_eq!(backoff.after(short), FIRST_WAIT * 2);
    }
}
