/// What parsing returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter '{filter}', at byte {at}: {reason}")]
pub struct Error {
    /// What was given, cut if it is long.
    pub filter: String,
    /// Where it is wrong.
    pub at: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Error {
    pub(crate) fn new(filter: &str, at: usize, reason: impl Into<String>) -> Self {
        let mut shown: String = filter.chars().take(120).collect();
        if shown.len() < filter.len() {
            shown.push('…');
        }
        Self {
            filter: shown,
            at,
            reason: reason.into(),
        }
    }
}
