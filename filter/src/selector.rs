use regex::Regex;

use crate::Fields;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) path: Vec<String>,
    pub(crate) test: Test,
}

#[derive(Clone, Debug)]
pub(crate) enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Equal(a), Self::Equal(b)) | (Self::NotEqual(a), Self::NotEqual(b)) => a == b,
            (Self::Matches(a), Self::Matches(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for Test {}

impl Selector {
    pub(crate) fn matches(&self, fields: &(impl Fields + ?Sized)) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = fields.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(expected) => value.is_some_and(|value| value == expected.as_str()),
            Test::NotEqual(other) => value.unwrap_or_default() != other.as_str(),
            Test::Matches(pattern) => pattern.is_match(&value.unwrap_or_default()),
        }
    }
}
