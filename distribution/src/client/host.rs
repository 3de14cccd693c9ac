use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

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
}
