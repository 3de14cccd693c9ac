//! What a container runs, as an image's config says it.

use longshore_bundle::Bundle;
use serde_json::{Map, Value, json};

use crate::create::blocking;
use crate::error::At;
use crate::{Container, Error, Result};

/// The process of the container's bundle.
pub(super) async fn of(container: &Container, doing: &str) -> Result<Map<String, Value>> {
    let directory = container.bundle_directory();
    let bundle = blocking(move || Bundle::load(directory)).await.at(doing)?;
    let process = bundle.spec().process().as_ref().ok_or_else(|| Error::Invalid {
        what: doing.to_owned(),
        reason: "its bundle has no process".into(),
    })?;
    let user = process.user();
    let fields = [
        ("Cmd", json!(process.args())),
        ("Env", json!(process.env())),
        ("WorkingDir", json!(process.cwd())),
        ("User", format!("{}:{}", user.uid(), user.gid()).into()),
    ];
    Ok(fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}
