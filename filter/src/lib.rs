//! containerd's filter syntax, as its clients write it: `topic==/tasks/start,event.container_id~=^web`.
//!
//! A filter is one or more selectors with commas between, all of which must match:
//!
//! - `name==value` and `name!=value` compare; a field that is not there is as an empty one for `!=`, and equals nothing;
//! - `name~=pattern` looks for a regular expression anywhere in the value;
//! - `name` alone asks whether the field is there.
//!
//! A field is a path of names with dots between, and a name that is no word stands in quotes: `labels."a/b.c"`. So does a value with a comma or white space
//! in it. A pattern may also stand between `/` or `|`. Several filters together match when one of them does, and none at all match everything.
//!
//! # What it is not for
//! Expressions: there is no `or` in a filter, no brackets, no numbers.
//!
//! # Limitations
//! Regular expressions are those of the `regex` crate, which are Go's but for rare classes. One whose automaton takes more than a megabyte is refused.
//!
//! # Example
//! ```
//! use longshore_filter::{Fields, Filter};
//!
//! struct Image(&'static str);
//! impl Fields for Image {
//!     fn field(&self, path: &[&str]) -> Option<std::borrow::Cow<'_, str>> {
//!         (path == ["name"]).then_some(self.0.into())
//!     }
//! }
//!
//! let filter: Filter = "name~=^docker.io/,name!=docker.io/library/alpine".parse()?;
//! assert!(filter.matches(&Image("docker.io/library/debian")));
//! assert!(!filter.matches(&Image("docker.io/library/alpine")));
//! # Ok::<(), longshore_filter::Error>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod parse;
mod selector;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use error::{Error, Result};

use selector::Selector;

/// Something with named fields.
pub trait Fields {
    /// The value of a field, or `None` when there is none. `labels.x.y` and `labels."x.y"` are different paths; see [`joined`].
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>>;
}

/// The rest of a path as one name: labels have dots in their names, and `labels.x.y` means that of `x.y`.
pub fn joined(path: &[&str]) -> String {
    path.join(".")
}

/// A filter, ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
    selectors: Vec<Selector>,
}

impl Filter {
    /// Whether all of it matches.
    pub fn matches(&self, fields: &(impl Fields + ?Sized)) -> bool {
        self.selectors.iter().all(|selector| selector.matches(fields))
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self {
            text: text.to_owned(),
            selectors: parse::selectors(text)?,
        })
    }
}

/// As it was written.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Filters of which one must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Vec<Filter>);

impl Filters {
    /// Parses each.
    ///
    /// # Errors
    /// That of the first that is none.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self> {
        texts.into_iter().map(|text| text.as_ref().parse()).collect()
    }

    /// Whether one matches; without any, everything does.
    pub fn matches(&self, fields: &(impl Fields + ?Sized)) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.matches(fields))
    }

    /// Whether everything matches because there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Filter> for Filters {
    fn from_iter<I: IntoIterator<Item = Filter>>(filters: I) -> Self {
        Self(filters.into_iter().collect())
    }
}

impl Extend<Filter> for Filters {
    fn extend<I: IntoIterator<Item = Filter>>(&mut self, filters: I) {
        self.0.extend(filters);
    }
}
