use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use crate::{Error, Result};

/// Which registries are spoken to by plain HTTP instead of HTTPS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainHttp {
    /// None, not even on this machine.
    Never,
    /// Those on this machine (`localhost`, 127.0.0.0/8, `[::1]`), as with Docker and containerd.
    #[default]
    LoopbackOnly,
    /// Those on this machine and these, each written as in a reference (`registry.internal:5000`). Whoever is on the
    /// way to them can read credentials; images are still proved by their digests, tags are not.
    Hosts(BTreeSet<String>),
}

impl PlainHttp {
    /// Whether the host, with its port if it has one, is spoken to by plain HTTP.
    pub(crate) fn covers(&self, authority: &str) -> bool {
        match self {
            Self::Never => false,
            Self::LoopbackOnly => is_loopback(authority),
            Self::Hosts(hosts) => is_loopback(authority) || hosts.contains(authority),
        }
    }
}

/// Whether an authority (`host` or `host:port`) is this machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a registry's API is: Docker Hub is served from another host than the one that names it.
pub(crate) fn api_authority(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Checks a reference that may have been put together from parts, which its constructors believe.
pub(crate) fn checked(reference: &Reference) -> Result<()> {
    let refuse = |reason: &str| {
        Err(Error::InvalidReference {
            reference: reference.to_string(),
            reason: reason.to_owned(),
        })
    };
    let registry = reference.registry();
    if registry.is_empty()
        || !registry
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b))
        || !registry.contains(|c: char| c.is_ascii_alphanumeric())
    {
        return refuse("its registry is not a host with an optional port");
    }
    let component = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    if reference.repository().len() > 255 || !reference.repository().split('/').all(component) {
        return refuse("its repository is not lower-case letters, digits and '.', '_', '-' between slashes");
    }
    if let Some(tag) = reference.tag()
        && !is_tag(tag)
    {
        return refuse("its tag is not up to 128 letters, digits, '.', '_' and '-'");
    }
    if let Some(digest) = reference.digest()
        && digest.parse::<Digest>().is_err()
    {
        return refuse("its digest is not <algorithm>:<hex>");
    }
    Ok(())
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for yes in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in [
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "128.0.0.1",
            "[::2]:1",
            "10.0.0.1",
            "",
        ] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn forged_references() {
        let with = |registry: &str, repository: &str, tag: &str| {
            checked(&Reference::with_tag(registry.into(), repository.into(), tag.into()))
        };
        with("[::1]:5000", "a/b", "1").unwrap();
        for (registry, repository, tag) in [
            ("user@host", "a", "1"),
            ("host/path", "a", "1"),
            ("", "a", "1"),
            ("..", "a", "1"),
            ("host", "../a", "1"),
            ("host", "a//b", "1"),
            ("host", "a?x=y", "1"),
            ("host", "A", "1"),
            ("host", "", "1"),
            ("host", "a", "../1"),
            ("host", "a", ""),
            ("host", "a", "x#y"),
        ] {
            assert!(
                with(registry, repository, tag).is_err(),
                "{registry} {repository} {tag}"
            );
        }
        let digest = Reference::with_digest("host".into(), "a".into(), "sha256:../..".into());
        assert!(checked(&digest).is_err());
    }
}
