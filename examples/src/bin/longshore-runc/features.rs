//! `features`: what this program supports, in the form of the runtime specification's features document.

use std::collections::HashMap;
use std::io::Write;

use serde_json::Value;

use crate::args::Arguments;
use crate::commands::COMMANDS;
use crate::failure::Outcome;
use crate::global::Global;

/// What runc calls checkpointing, which the specification does not have (`types/features` of runc).
const CHECKPOINT: &str = "org.opencontainers.runc.checkpoint.enabled";

/// `longshore-runc features`
pub(crate) fn features(_: &Global, _: &Arguments) -> Outcome {
    let mut features = longshore_runtime::features();
    let checkpoints = COMMANDS.iter().any(|command| command.name == "checkpoint");
    features.set_annotations(Some(HashMap::from([(CHECKPOINT.to_owned(), checkpoints.to_string())])));
    let mut document = serde_json::to_value(features)?;
    leave_out_unknown(&mut document);
    let json = serde_json::to_string_pretty(&document)?;
    writeln!(std::io::stdout(), "{json}")?;
    Ok(0)
}

/// What is not known is not there, as Go's programs write it.
fn leave_out_unknown(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(leave_out_unknown);
    }
}
