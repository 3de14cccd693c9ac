//! Platforms: the host's, parsing, and choosing the manifest of an index that runs here.

use std::fmt::Write;

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os, Platform};

use crate::{Error, Result, media};

/// The platform of the machine that we run on: `linux` and the CPU in Go's names (`amd64`, `arm64`, ...), by which
/// the image specification names it.
pub fn host_platform() -> Platform {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "mips64" if cfg!(target_endian = "little") => "mips64le",
        "mips" if cfg!(target_endian = "little") => "mipsle",
        "loongarch64" => "loong64",
        other => other,
    };
    platform(std::env::consts::OS, arch, None)
}

/// Parses `os/arch`, `os/arch/variant` or an architecture alone (then the OS is the host's). Aliases such as
/// `x86_64` and `aarch64` are accepted.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid).
pub fn parse_platform(text: &str) -> Result<Platform> {
    let invalid = |reason| Error::InvalidPlatform {
        platform: text.to_owned(),
        reason,
    };
    let lower = text.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    let ok = |part: &&str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    if !parts.iter().all(ok) {
        return Err(invalid("its parts are letters, digits, '_', '-' and '.'"));
    }
    match parts[..] {
        [arch] => Ok(platform(std::env::consts::OS, arch, None)),
        [os, arch] => Ok(platform(os, arch, None)),
        [os, arch, variant] => Ok(platform(os, arch, Some(variant))),
        _ => Err(invalid("it has more than three parts")),
    }
}

/// A platform as people write it: `linux/arm64/v8`.
pub fn format_platform(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os(), platform.architecture());
    if let Some(variant) = platform.variant() {
        let _ = write!(text, "/{variant}");
    }
    text
}

/// A platform with its names brought to the ones that the specification uses.
fn platform(os: &str, arch: &str, variant: Option<&str>) -> Platform {
    let os = if os == "macos" { "darwin" } else { os };
    let (arch, variant) = match (arch, variant) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386" | "i686", variant) => ("386", variant),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        other => other,
    };
    let mut platform = Platform::default();
    platform.set_os(Os::from(os));
    platform.set_architecture(match arch {
        // The vocabulary's own conversion takes this name for another architecture.
        "armbe" => Arch::ARMbe,
        arch => Arch::from(arch),
    });
    platform.set_variant(canonical_variant(arch, variant));
    platform
}

/// The variant, without the one that each architecture has by default.
fn canonical_variant(arch: &str, variant: Option<&str>) -> Option<String> {
    let variant = variant.filter(|variant| !variant.is_empty())?;
    let variant = match variant.as_bytes()[0] {
        b'0'..=b'9' => format!("v{variant}"),
        _ => variant.to_owned(),
    };
    match (arch, variant.as_str()) {
        ("amd64", "v1") | ("arm64", "v8") | ("arm", "v7") => None,
        _ => Some(variant),
    }
}

/// How well `offered` serves `wanted`: 0 is the platform itself, more is further off, `None` does not run.
///
/// A CPU runs what is made for its older variants; an amd64 runs 386 and an arm64 runs arm, as a last resort.
pub(crate) fn distance(wanted: &Platform, offered: &Platform) -> Option<u32> {
    if wanted.os() != offered.os() {
        return None;
    }
    let (want, have) = (wanted.architecture().to_string(), offered.architecture().to_string());
    let wanted_variant = level(&want, wanted.variant().as_deref());
    let offered_variant = level(&have, offered.variant().as_deref());
    match (want.as_str(), have.as_str()) {
        (want, have) if want == have => match (wanted_variant, offered_variant) {
            (Some(want), Some(have)) => want.checked_sub(have),
            _ => (wanted.variant() == offered.variant()).then_some(0),
        },
        ("amd64", "386") => Some(100),
        ("arm64", "arm") => Some(100 + 8u32.checked_sub(offered_variant?)?),
        _ => None,
    }
}

/// The variant as a number, where an architecture's variants build on each other.
fn level(arch: &str, variant: Option<&str>) -> Option<u32> {
    let default = match arch {
        "amd64" => 1,
        "arm64" => 8,
        "arm" => 7,
        _ => return None,
    };
    match variant {
        None | Some("") => Some(default),
        Some(variant) => variant.strip_prefix('v').unwrap_or(variant).parse().ok(),
    }
}

/// Whether an entry is no image but a statement about one (provenance, SBOM), which BuildKit puts in the index.
fn is_attestation(entry: &Descriptor) -> bool {
    let annotated = entry
        .annotations()
        .as_ref()
        .is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    let unknown = entry.platform().as_ref().is_some_and(|platform| {
        platform.os() == &Os::Other("unknown".into()) && platform.architecture() == &Arch::Other("unknown".into())
    });
    annotated || unknown
}

/// The entry of `index` that serves `wanted` best; the first of equals.
///
/// An entry that names no platform is taken when it is the only image there is (the config tells what it really is).
pub(crate) fn choose<'a>(index: &'a ImageIndex, wanted: &Platform) -> Option<&'a Descriptor> {
    let images = || {
        index.manifests().iter().filter(|entry| {
            !is_attestation(entry) && (media::is_manifest(entry.media_type()) || media::is_index(entry.media_type()))
        })
    };
    let best = images()
        .filter_map(|entry| Some((distance(wanted, entry.platform().as_ref()?)?, entry)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, entry)| entry);
    best.or_else(|| {
        let mut all = images();
        match (all.next(), all.next()) {
            (Some(only), None) if only.platform().is_none() => Some(only),
            _ => None,
        }
    })
}

/// The platforms of an index, for a person to read.
pub(crate) fn available(index: &ImageIndex) -> String {
    let mut all: Vec<String> = Vec::new();
    for entry in index.manifests().iter().filter(|entry| !is_attestation(entry)) {
        let text = entry
            .platform()
            .as_ref()
            .map_or("an image of no stated platform".into(), format_platform);
        if !all.contains(&text) {
            all.push(text);
        }
    }
    match all.len() {
        0 => "no image at all".into(),
        n if n > 20 => format!("{} and {} more", all[..20].join(", "), n - 20),
        _ => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm/7", "linux/arm"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("s390x", "linux/s390x"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/armbe", "linux/armbe"),
        ] {
            assert_eq!(format_platform(&parse_platform(text).unwrap()), expected, "{text}");
        }
        for text in ["", "/", "linux/", "linux/amd64/v1/x", "linux/am d64", "linux/é"] {
            assert!(parse_platform(text).is_err(), "{text}");
        }
    }

    #[test]
    fn distances() {
        for (wanted, offered, expected) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/386", Some(100)),
            ("linux/386", "linux/amd64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/arm64", "linux/arm/v7", Some(101)),
            ("linux/arm64", "linux/arm/v6", Some(102)),
            ("linux/arm", "linux/arm/v5", Some(2)),
            ("linux/arm/v6", "linux/arm", None),
            ("linux/riscv64", "linux/riscv64", Some(0)),
            ("linux/riscv64", "linux/amd64", None),
        ] {
            let (a, b) = (parse_platform(wanted).unwrap(), parse_platform(offered).unwrap());
            assert_eq!(distance(&a, &b), expected, "{wanted} from {offered}");
        }
    }

    fn index(entries: &[(&str, &str)]) -> ImageIndex {
        let manifests: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(n, (os, arch))| {
                let mut entry = serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": format!("sha256:{n:064}"), "size": 1,
                });
                if !os.is_empty() {
                    entry["platform"] = serde_json::json!({ "os": os, "architecture": arch });
                }
                entry
            })
            .collect();
        serde_json::from_value(serde_json::json!({ "schemaVersion": 2, "manifests": manifests })).unwrap()
    }

    #[test]
    fn choices() {
        let amd64 = parse_platform("linux/amd64").unwrap();
        let at = |index: &ImageIndex| {
            let chosen = choose(index, &amd64)?;
            index.manifests().iter().position(|entry| entry == chosen)
        };
        assert_eq!(
            at(&index(&[("linux", "arm64"), ("linux", "amd64"), ("linux", "amd64")])),
            Some(1)
        );
        assert_eq!(at(&index(&[("linux", "386"), ("linux", "amd64")])), Some(1));
        assert_eq!(at(&index(&[("linux", "386"), ("windows", "amd64")])), Some(0));
        assert_eq!(at(&index(&[("unknown", "unknown"), ("linux", "amd64")])), Some(1));
        assert_eq!(at(&index(&[("", ""), ("unknown", "unknown")])), Some(0));
        assert_eq!(at(&index(&[("", ""), ("", "")])), None);
        let other = index(&[("linux", "s390x"), ("unknown", "unknown"), ("linux", "arm64")]);
        assert_eq!(at(&other), None);
        assert_eq!(available(&other), "linux/s390x, linux/arm64");
    }
}
