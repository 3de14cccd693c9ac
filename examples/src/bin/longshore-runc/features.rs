//! `features`: what this program supports, in the form of the runtime specification's features document.

use std::io::Write;

use serde_json::json;

use crate::args::Arguments;
use crate::failure::Outcome;
use crate::global::Global;

/// `longshore-runc features`
pub(crate) fn features(_: &Global, _: &Arguments) -> Outcome {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": longshore_bundle::SPEC_VERSION,
    });
    let json = serde_json::to_string_pretty(&features)?;
    writeln!(std::io::stdout(), "{json}")?;
    Ok(0)
}
