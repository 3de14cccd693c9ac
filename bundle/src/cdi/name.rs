//! Names of devices.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The whole name of a device: `vendor.com/class=device`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CdiName {
    kind: String,
    device: String,
}

impl CdiName {
    /// From parts that were checked.
    pub(super) fn of(kind: &str, device: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            device: device.to_owned(),
        }
    }

    /// Vendor and class, `vendor.com/class`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The device among those of its kind.
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl fmt::Display for CdiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl FromStr for CdiName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (kind, device) = text
                .split_once('=')
                .ok_or("a name looks like vendor.com/class=device")?;
            check_kind(kind)?;
            check_device(device)?;
            Ok::<_, String>(Self::of(kind, device))
        };
        parse().map_err(|reason| Error::option("CDI device", text, reason))
    }
}

/// `vendor/class`.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let (vendor, class) = kind
        .split_once('/')
        .ok_or_else(|| format!("'{kind}' is no kind; one looks like vendor.com/class"))?;
    check("vendor", vendor, Begin::Letter, "_-.")?;
    check("class", class, Begin::Letter, "_-.")
}

/// The part after `=`.
pub(super) fn check_device(device: &str) -> Result<(), String> {
    check("device", device, Begin::LetterOrDigit, "_-.:")
}

#[derive(Clone, Copy)]
enum Begin {
    Letter,
    LetterOrDigit,
}

fn check(what: &str, name: &str, begin: Begin, between: &str) -> Result<(), String> {
    let begins = match begin {
        Begin::Letter => name.starts_with(|c: char| c.is_ascii_alphabetic()),
        Begin::LetterOrDigit => name.starts_with(|c: char| c.is_ascii_alphanumeric()),
    };
    let ends = name.ends_with(|c: char| c.is_ascii_alphanumeric());
    let of_known = name.chars().all(|c| c.is_ascii_alphanumeric() || between.contains(c));
    if begins && ends && of_known {
        return Ok(());
    }
    let begin = match begin {
        Begin::Letter => "a letter",
        Begin::LetterOrDigit => "a letter or digit",
    };
    Err(format!(
        "'{name}' is no name of a {what}: it begins with {begin}, ends with a letter or digit, and has letters, digits and any of '{between}' between them"
    ))
}
