use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// How often and how patiently a request is repeated that got no answer, or an answer that says "later".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times a request is sent at most. Default: 5.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles each time, and up to half of it is left to chance, so that
    /// many clients do not come back at the same moment. Default: 250 ms.
    pub first_wait: Duration,
    /// The longest wait, also when the registry asks for a longer one by `Retry-After`. Default: 30 s.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after attempt `attempt` (counted from 1) failed; `None` to give up.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << (attempt - 1).min(16));
        let backoff = doubled.mul_f64(0.5 + 0.5 * chance());
        Some(asked.unwrap_or_default().max(backoff).min(self.longest_wait))
    }
}

/// Whether a later attempt may get another answer.
pub(crate) fn is_worth_retrying(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What `Retry-After` asks for, in its form of seconds. (The date form would make us believe the other side's clock.)
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A number from 0 to 1, different each time; no secret depends on it.
fn chance() -> f64 {
    f64::from(u32::try_from(RandomState::new().build_hasher().finish() >> 32).expect("shifted to 32 bits"))
        / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        let policy = RetryPolicy {
            attempts: 4,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
        };
        for (attempt, longest) in [(1, 100), (2, 200), (3, 400)] {
            for _ in 0..50 {
                let wait = policy.wait(attempt, None).unwrap().as_millis();
                assert!((longest / 2..=longest).contains(&wait), "{wait} after {attempt}");
            }
        }
        assert_eq!(policy.wait(4, None), None);
        assert_eq!(
            policy.wait(1, Some(Duration::from_millis(700))),
            Some(Duration::from_millis(700))
        );
        assert_eq!(
            policy.wait(1, Some(Duration::from_secs(3600))),
            Some(Duration::from_secs(1))
        );
        let endless = RetryPolicy {
            attempts: u32::MAX,
            ..policy
        };
        assert!(endless.wait(1000, None).is_some());
    }

    #[test]
    fn retry_after_in_seconds() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(with("7"), Some(Duration::from_secs(7)));
        assert_eq!(with("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(with("-1"), None);
    }
}
