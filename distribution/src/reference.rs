//! Names of images, as people write them.

use std::net::Ipv6Addr;

use oci_spec::distribution::Reference;
use oci_spec::image::{Digest, DigestAlgorithm};

use crate::{Error, Result};

/// The registry of names that tell none.
const DOCKER_HUB: &str = "docker.io";
/// How Docker Hub was called once.
const DOCKER_HUB_OF_OLD: &str = "index.docker.io";
/// Where Docker Hub keeps images whose names have one part.
const OFFICIAL: &str = "library";
/// The tag of names that tell neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The longest repository (distribution specification, "Pulling manifests").
const MAX_REPOSITORY: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;

/// Reads a name of an image: `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, where HOST may be an IPv6 address in brackets.
///
/// What is left out means what it does to Docker: `alpine` is `docker.io/library/alpine:latest`, `team/app` is `docker.io/team/app:latest`, with a digest no tag is added. The part
/// before the first slash is a host when it has a dot, a colon or a capital letter, or is `localhost`. What is printed of a reference (`Reference::whole`) is read as the same again.
///
/// `str::parse` of [`Reference`] knows no IPv6 addresses, and takes some names for others than Docker does.
///
/// ```
/// use longshore_distribution::parse_reference;
///
/// assert_eq!(parse_reference("alpine")?.whole(), "docker.io/library/alpine:latest");
/// let name = parse_reference("[::1]:5000/team/app:1")?;
/// assert_eq!((name.registry(), name.repository(), name.tag()), ("[::1]:5000", "team/app", Some("1")));
/// # Ok::<(), longshore_distribution::Error>(())
/// ```
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid), with what is wrong and where.
pub fn parse_reference(text: &str) -> Result<Reference> {
    parse(text).map_err(|reason| invalid(text, reason))
}

/// Checks a reference that may have been put together from parts, which its constructors believe.
pub(crate) fn checked(reference: &Reference) -> Result<()> {
    check(reference).map_err(|reason| invalid(&reference.to_string(), reason))
}

fn invalid(text: &str, reason: String) -> Error {
    Error::InvalidReference {
        reference: text.to_owned(),
        reason,
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave out '{scheme}://'"));
    }
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err("it is the id of an image, not a name".into());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (text, None),
    };
    // A colon before the last slash is a port's, or an address's.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].rfind(':') {
        Some(colon) if !rest[last..].starts_with('[') => {
            (&rest[..last + colon], Some(rest[last + colon + 1..].to_owned()))
        }
        _ => (rest, None),
    };
    let (registry, repository) = split(name);
    let reference = match (tag, digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(registry, repository, tag, digest),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (tag, None) => Reference::with_tag(registry, repository, tag.unwrap_or_else(|| DEFAULT_TAG.into())),
    };
    check(&reference)?;
    Ok(reference)
}

/// Registry and repository of a name, as Docker tells them apart.
fn split(name: &str) -> (String, String) {
    let is_host = |part: &str| part == "localhost" || part.contains(|c: char| c == '.' || c == ':' || c.is_uppercase());
    let (registry, repository) = match name.split_once('/') {
        Some((DOCKER_HUB_OF_OLD, rest)) => (DOCKER_HUB, rest),
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DOCKER_HUB, name),
    };
    if registry == DOCKER_HUB && !repository.contains('/') && !repository.is_empty() {
        return (registry.to_owned(), format!("{OFFICIAL}/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn check(reference: &Reference) -> Result<(), String> {
    check_registry(reference.registry())?;
    check_repository(reference.repository())?;
    reference.tag().map_or(Ok(()), check_tag)?;
    reference.digest().map_or(Ok(()), check_digest)
}

fn check_registry(registry: &str) -> Result<(), String> {
    let port = if let Some(rest) = registry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("its '[' is not closed")?;
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(format!("'{address}' is not an IPv6 address"));
        }
        match rest.strip_prefix(':') {
            None if !rest.is_empty() => return Err(format!("after ']' comes ':' and a port, not '{rest}'")),
            port => port,
        }
    } else {
        let (host, port) = match registry.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(format!("'{registry}' is no host; an IPv6 address is put in brackets"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        };
        if !host.split('.').all(is_label) {
            return Err(format!(
                "its registry '{host}' is not a host's name: letters, digits and '-' between dots"
            ));
        }
        port
    };
    match port {
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() => {
            Err(format!("'{port}' is not a port"))
        }
        _ => Ok(()),
    }
}

/// A part of a host's name.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err("it names no repository".into());
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(format!("its repository is longer than {MAX_REPOSITORY} characters"));
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("its repository has capital letters".into());
    }
    match repository.split('/').find(|part| !is_component(part)) {
        Some(part) => Err(format!(
            "'{part}' is no part of a repository: lower-case letters and digits, between them '.', '_', '__' or '-'"
        )),
        None => Ok(()),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution specification, "Pulling manifests").
fn is_component(part: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(is_alphanumeric)
        && part.ends_with(is_alphanumeric)
        && part
            .split(is_alphanumeric)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), String> {
    let is_tag = (1..=MAX_TAG).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !tag.starts_with(['.', '-']);
    match is_tag {
        true => Ok(()),
        false => Err(format!(
            "'{tag}' is not a tag: up to {MAX_TAG} letters, digits, '.', '_' and '-', the first no '.' or '-'"
        )),
    }
}

fn check_digest(digest: &str) -> Result<(), String> {
    use DigestAlgorithm::{Sha256, Sha384, Sha512};
    match digest.parse::<Digest>() {
        Ok(parsed) if matches!(parsed.algorithm(), Sha256 | Sha384 | Sha512) => Ok(()),
        _ => Err(format!(
            "'{digest}' is not a digest: 'sha256:' and 64 lower-case hexadecimal digits, or as many as sha384 or sha512 have"
        )),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn what_is_left_out_is_what_docker_takes_it_for() {
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("r.example", "docker.io/library/r.example:latest"),
            ("r.example/a", "r.example/a:latest"),
            ("r:5000/a", "r:5000/a:latest"),
            ("Host/app", "Host/app:latest"),
            ("a/b/c/d:Tag_1.x-", "docker.io/a/b/c/d:Tag_1.x-"),
            ("a/x.y_z__w--v", "docker.io/a/x.y_z__w--v:latest"),
            ("127.0.0.1:80/a", "127.0.0.1:80/a:latest"),
            ("[::1]/a", "[::1]/a:latest"),
            ("[::1]:5000/a/b:tag", "[::1]:5000/a/b:tag"),
            ("[2001:DB8::7]:443/a", "[2001:DB8::7]:443/a:latest"),
            ("[::ffff:10.0.0.1]/a", "[::ffff:10.0.0.1]/a:latest"),
        ] {
            assert_eq!(parse_reference(text).expect(text).whole(), whole, "{text}");
        }
        for (text, whole) in [
            ("alpine@", "docker.io/library/alpine@"),
            ("r.example/a:1@", "r.example/a:1@"),
            ("[::1]:5000/a/b:tag@", "[::1]:5000/a/b:tag@"),
        ] {
            let digest = format!("sha256:{HEX}");
            let parsed = parse_reference(&format!("{text}{digest}")).expect(text);
            assert_eq!(parsed.whole(), format!("{whole}{digest}"));
            assert_eq!(parsed.digest(), Some(digest.as_str()));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let long = "a".repeat(256);
        for (text, part) in [
            ("", "is empty"),
            ("https://r.example/a", "leave out 'https://'"),
            (HEX, "the id of an image"),
            (":tag", "names no repository"),
            ("r.example/", "names no repository"),
            ("r.example/:1", "names no repository"),
            ("Alpine", "capital letters"),
            ("r.example/Team/app", "capital letters"),
            ("a//b", "'' is no part"),
            ("../a", "host's name"),
            ("r.example/a/../b", "'..' is no part"),
            ("a/-b", "'-b' is no part"),
            ("a/b___c", "'b___c' is no part"),
            ("a/b._c", "'b._c' is no part"),
            ("a b", "'a b' is no part"),
            ("r.example/é", "'é' is no part"),
            (&long, "longer than 255"),
            ("a:", "'' is not a tag"),
            ("a:.x", "'.x' is not a tag"),
            (&format!("a:{}", "x".repeat(129)), "is not a tag"),
            ("a:b:c", "'a:b' is no part"),
            ("-r.example/a", "host's name"),
            ("r_x.example/a", "host's name"),
            ("user:password@r.example/a", "is not a digest"),
            ("r.example:/a", "'' is not a port"),
            ("r.example:x/a", "'x' is not a port"),
            ("r.example:+5/a", "'+5' is not a port"),
            ("r.example:65536/a", "'65536' is not a port"),
            ("::1/a", "in brackets"),
            ("[::1/a", "not closed"),
            ("[::1]5/a", "not '5'"),
            ("[::1]:/a", "'' is not a port"),
            ("[fe80::1%eth0]/a", "not an IPv6 address"),
            ("[127.0.0.1]/a", "not an IPv6 address"),
            ("[::1]", "is no part"),
            ("[::1]:5000", "is no part"),
            ("a@sha256:ff", "is not a digest"),
            (&format!("a@sha256:{}", HEX.to_uppercase()), "is not a digest"),
            (&format!("a@md5:{HEX}"), "is not a digest"),
            ("a@", "'' is not a digest"),
        ] {
            let error = parse_reference(text).expect_err(text);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            assert!(error.to_string().contains(part), "{text}: {error}");
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

    fn registry() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?(\\.[a-zA-Z0-9]{1,5}){1,3}",
            Just("localhost".to_owned()),
            any::<Ipv6Addr>().prop_map(|address| format!("[{address}]")),
            any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        ];
        (host, proptest::option::of(any::<u16>())).prop_map(|(host, port)| match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    }

    const COMPONENTS: &str = "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}){0,3}";

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(
            registry in registry(),
            repository in COMPONENTS,
            tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}"),
            digest in proptest::option::of("sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"),
        ) {
            let made = match (tag, digest) {
                (Some(tag), Some(digest)) => Reference::with_tag_and_digest(registry, repository, tag, digest),
                (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
                (tag, None) => Reference::with_tag(registry, repository, tag.unwrap_or_else(|| "latest".into())),
            };
            checked(&made).unwrap();
            prop_assert_eq!(parse_reference(&made.whole()).unwrap(), made);
        }

        #[test]
        fn any_text_is_refused_or_settles(text in "[a-cA-B0-1\\[\\]:./@_-]{0,24}|\\PC{0,24}") {
            if let Ok(parsed) = parse_reference(&text) {
                prop_assert!(checked(&parsed).is_ok());
                prop_assert_eq!(parse_reference(&parsed.whole()).unwrap(), parsed);
            }
        }

        /// Where the parser of the specification's crate and Docker agree, so do we.
        #[test]
        fn names_without_oddities_are_read_as_by_others(text in "([a-z]{1,4}(\\.[a-z]{1,3}){0,2}(:[0-9]{1,4})?/)?[a-z0-9]{1,4}([._-][a-z]{1,2}){0,1}(/[a-z]{1,3}){0,2}(:[a-zA-Z0-9_]{1,5})?") {
            prop_assert_eq!(parse_reference(&text).unwrap(), text.parse().unwrap());
        }
    }
}
