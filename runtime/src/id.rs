use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The id of a container: what runc accepts, `[A-Za-z0-9_+.-]+`, at most 255 bytes, and neither `.` nor `..`: it becomes a
/// directory's name and is safe as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Box<str>);

impl ContainerId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`Error::InvalidId`] says what is not allowed.
    pub fn new(id: impl AsRef<str>) -> Result<Self, Error> {
        let id = id.as_ref();
        let refuse = |reason: &str| {
            Err(Error::InvalidId {
                id: id.to_owned(),
                reason: reason.to_owned(),
            })
        };
        if id.is_empty() {
            return refuse("it is empty");
        }
        if id.len() > 255 {
            return refuse("it is longer than 255 bytes");
        }
        if id == "." || id == ".." {
            return refuse("it is a directory's own name");
        }
        match id.chars().find(|c| !(c.is_ascii_alphanumeric() || "_+-.".contains(*c))) {
            Some(c) => refuse(&format!("it has {c:?}; letters, digits and _ + - . are allowed")),
            None => Ok(Self(id.into())),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Self::new(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runc_accepts_is_accepted() {
        for id in ["a", "0", "web-1", "a_b+c.d", "...", &"x".repeat(255)] {
            assert_eq!(ContainerId::new(id).expect(id).as_str(), id);
        }
    }

    #[test]
    fn what_could_leave_the_state_directory_is_refused() {
        for id in ["", ".", "..", "a/b", "../x", "a b", "a\0", "ü", &"x".repeat(256)] {
            let error = ContainerId::new(id).expect_err(id);
            assert!(matches!(error, Error::InvalidId { .. }), "{error}");
        }
    }
}
