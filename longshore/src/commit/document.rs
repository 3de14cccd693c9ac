//! Config and manifest of an image that is made from another: what we do not know of them stays as it is.

use std::time::{SystemTime, UNIX_EPOCH};

use longshore_snapshot::Compression;
use oci_spec::image::{ImageManifest, MediaType};
use serde_json::{Map, Value, json};

use super::instruction::Instruction;
use super::layer::Layer;

/// What the history says.
pub(super) struct Story<'a> {
    pub(super) created: SystemTime,
    pub(super) author: Option<&'a str>,
    pub(super) comment: Option<&'a str>,
    pub(super) container: &'a str,
}

/// The base's config with one more layer, the history of it, and the changes.
pub(super) fn config(
    base: &[u8],
    layer: &Layer,
    story: &Story<'_>,
    process: Option<Map<String, Value>>,
    instructions: &[Instruction],
) -> Result<Vec<u8>, String> {
    let mut config: Map<String, Value> = serde_json::from_slice(base).map_err(|error| error.to_string())?;
    let created = rfc3339(story.created);
    config.insert("created".to_owned(), created.clone().into());
    if let Some(author) = story.author {
        config.insert("author".to_owned(), author.into());
    }
    // Docker's config of the container that an image was made in is of another container now.
    for stale in ["container", "container_config"] {
        config.remove(stale);
    }
    let diff_ids = config
        .get_mut("rootfs")
        .and_then(|rootfs| rootfs.get_mut("diff_ids"))
        .and_then(Value::as_array_mut)
        .ok_or("it has no list of layers")?;
    diff_ids.push(layer.diff_id.to_string().into());
    let mut entry = json!({
        "created": created,
        "created_by": format!("longshore commit {}", story.container),
    });
    for (key, value) in [("author", story.author), ("comment", story.comment)] {
        if let Some(value) = value {
            entry[key] = value.into();
        }
    }
    let history = config.entry("history").or_insert_with(|| json!([]));
    if history.is_null() {
        *history = json!([]);
    }
    history.as_array_mut().ok_or("its history is no list")?.push(entry);
    let inner = config.entry("config").or_insert_with(|| json!({}));
    if inner.is_null() {
        *inner = json!({});
    }
    let inner = inner.as_object_mut().ok_or("its config is no object")?;
    if let Some(process) = process {
        inner.remove("Entrypoint");
        inner.extend(process);
    }
    for instruction in instructions {
        instruction.apply(inner)?;
    }
    serde_json::to_vec(&config).map_err(|error| error.to_string())
}

/// A manifest of the base's format, with one more layer.
pub(super) fn manifest(base: &ImageManifest, layer: &Layer, config: &[u8]) -> Vec<u8> {
    let mut layers = json!(base.layers());
    layers.as_array_mut().expect("a list has that form").push(json!({
        "mediaType": layer_type(base, layer.compression),
        "digest": layer.digest,
        "size": layer.size,
    }));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type(base).to_string(),
        "config": {
            "mediaType": base.config().media_type().to_string(),
            "digest": longshore_content::sha256(config),
            "size": config.len(),
        },
        "layers": layers,
    });
    serde_json::to_vec(&manifest).expect("texts and numbers have a JSON form")
}

pub(super) fn manifest_type(base: &ImageManifest) -> MediaType {
    match base.media_type() {
        Some(given) => given.clone(),
        None => MediaType::ImageManifest,
    }
}

fn layer_type(base: &ImageManifest, compression: Compression) -> &'static str {
    if !manifest_type(base).to_string().starts_with("application/vnd.docker.") {
        return compression.media_type();
    }
    match compression {
        Compression::None => "application/vnd.docker.image.rootfs.diff.tar",
        Compression::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        _ => "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
}

/// The time in UTC, whole seconds, as RFC 3339 has it.
fn rfc3339(at: SystemTime) -> String {
    // Before 1970 no image was made.
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Years begin in March here, so that the leap day is the last: an era is 400 of them.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use longshore_content::sha256;

    use super::*;

    #[test]
    fn times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        let base = br#"{"architecture":"amd64","os":"linux","os.version":"7","container":"abc","config":{"Cmd":["sh"],
            "Healthcheck":{"Test":["CMD","true"]},"Shell":["/bin/sh","-c"],"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":["sha256:0"]},
            "history":[{"created_by":"first"}]}"#;
        let layer = Layer {
            digest: sha256(b"compressed"),
            size: 10,
            diff_id: sha256(b"plain"),
            compression: Compression::Gzip,
        };
        let story = Story {
            created: UNIX_EPOCH,
            author: Some("me"),
            comment: None,
            container: "box",
        };
        let instructions = ["CMD [\"top\"]".parse().expect("an instruction")];
        let made = config(base, &layer, &story, None, &instructions).expect("a config");
        let made: Value = serde_json::from_slice(&made).expect("json");
        let mut expected: Value = serde_json::from_slice(base).expect("json");
        expected.as_object_mut().expect("an object").remove("container");
        expected["created"] = "1970-01-01T00:00:00Z".into();
        expected["author"] = "me".into();
        expected["config"]["Cmd"] = json!(["top"]);
        expected["rootfs"]["diff_ids"] = json!(["sha256:0", layer.diff_id]);
        expected["history"] = json!([{"created_by": "first"},
            {"created": "1970-01-01T00:00:00Z", "created_by": "longshore commit box", "author": "me"}]);
        assert_eq!(made, expected);
        assert!(config(b"{}", &layer, &story, None, &[]).is_err());
    }

    #[test]
    fn the_format_is_the_bases() {
        let base = |kind: &str, config: &str| -> ImageManifest {
            serde_json::from_value(
                json!({"schemaVersion": 2, "mediaType": kind, "config": {"mediaType": config,
                "digest": sha256(b"c"), "size": 1}, "layers": []}),
            )
            .expect("a manifest")
        };
        let layer = Layer {
            digest: sha256(b"compressed"),
            size: 10,
            diff_id: sha256(b"plain"),
            compression: Compression::Gzip,
        };
        for (kind, config, expected) in [
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
        ] {
            let made = manifest(&base(kind, config), &layer, b"{}");
            let made: Value = serde_json::from_slice(&made).expect("json");
            assert_eq!(made["mediaType"], kind);
            assert_eq!(made["config"]["mediaType"], config);
            assert_eq!(made["layers"][0]["mediaType"], expected);
        }
    }
}
