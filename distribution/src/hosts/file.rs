//! `hosts.toml`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use http::{HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::host::Identity;
use super::{Capability, Host, Verification, duration};
use crate::{Error, Result};

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

/// Reads a file of a registry whose own address is `own`: the mirrors in the file's order, then the server.
pub(crate) fn parse(text: &str, path: &Path, own: &Url) -> Result<Vec<Host>> {
    let place = Place { text, path };
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        place.wrong("", span, error.message())
    })?;
    let mut mirrors = Vec::new();
    let mut server = None;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        match key.get_ref().as_ref() {
            "server" => server = Some((place.string(key, value)?, key.span())),
            "host" => {
                for (url, table) in place.table(key, value)? {
                    let settings: Vec<_> = place.table(url, table)?.iter().collect();
                    let host = build(&place, url.get_ref(), url.span(), &settings)?;
                    mirrors.push((url.span().start, host));
                }
            }
            _ => settings.push((key, value)),
        }
    }
    // The table is ordered by name; what counts is where each stands in the file.
    mirrors.sort_by_key(|(at, _)| *at);
    let (server, at) = server.unwrap_or((own.as_str(), 0..0));
    let server = build(&place, server, at, &settings)?;
    Ok(mirrors.into_iter().map(|(_, host)| host).chain([server]).collect())
}

/// Where an error is.
struct Place<'a> {
    text: &'a str,
    path: &'a Path,
}

impl<'a> Place<'a> {
    fn wrong(&self, key: &str, span: Range<usize>, reason: impl std::fmt::Display) -> Error {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let reason = match key {
            "" => reason.to_string(),
            key => format!("'{key}': {reason}"),
        };
        Error::HostsFile {
            place: format!("{}, line {line}", self.path.display()),
            reason,
        }
    }

    fn at(&self, key: &Key<'_>, reason: impl std::fmt::Display) -> Error {
        self.wrong(key.get_ref(), key.span(), reason)
    }

    fn table<'v>(&self, key: &Key<'_>, value: &'v Value<'a>) -> Result<&'v DeTable<'a>> {
        let table = value.get_ref().as_table();
        table.ok_or_else(|| self.at(key, format!("it is a {}, not a table", value.get_ref().type_str())))
    }

    fn string<'v>(&self, key: &Key<'_>, value: &'v Value<'_>) -> Result<&'v str> {
        let text = value.get_ref().as_str();
        text.ok_or_else(|| self.at(key, format!("it is a {}, not a string", value.get_ref().type_str())))
    }

    fn boolean(&self, key: &Key<'_>, value: &Value<'_>) -> Result<bool> {
        let value = value.get_ref();
        value
            .as_bool()
            .ok_or_else(|| self.at(key, format!("it is a {}, not true or false", value.type_str())))
    }

    /// A string, or a list of them.
    fn strings<'v>(&self, key: &Key<'_>, value: &'v Value<'_>) -> Result<Vec<&'v str>> {
        match value.get_ref().as_array() {
            Some(list) => list.iter().map(|one| self.string(key, one)).collect(),
            None => Ok(vec![self.string(key, value)?]),
        }
    }
}

/// One host, from its URL and the keys of its table.
fn build(place: &Place<'_>, url: &str, at: Range<usize>, settings: &[(&Key<'_>, &Value<'_>)]) -> Result<Host> {
    let overrides = settings.iter().find(|(key, _)| key.get_ref() == "override_path");
    let overrides = overrides.map(|(key, value)| place.boolean(key, value)).transpose()?;
    let host = if overrides == Some(true) {
        Host::at_api_root(url)
    } else {
        Host::new(url)
    };
    let mut host = host.map_err(|error| place.wrong("", at, error))?;
    for (key, value) in settings {
        host = set(place, host, key, value)?;
    }
    Ok(host)
}

fn set(place: &Place<'_>, mut host: Host, key: &Key<'_>, value: &Value<'_>) -> Result<Host> {
    let beside = |name: &str| place.path.with_file_name("").join(name);
    match key.get_ref().as_ref() {
        "capabilities" => host.capabilities = capabilities(place, key, value)?,
        "ca" => {
            for name in place.strings(key, value)? {
                host = host.authority_file(beside(name));
            }
        }
        "client" => {
            for (certificate, private) in clients(place, key, value)? {
                host.identities.push(Identity {
                    certificate: beside(certificate),
                    key: beside(private),
                });
            }
        }
        "skip_verify" if place.boolean(key, value)? => host.verification = Verification::Skipped,
        "skip_verify" | "override_path" => {}
        "dial_timeout" => {
            let text = place.string(key, value)?;
            let timeout = duration::parse(text)
                .ok_or_else(|| place.at(key, format!("'{text}' is not a duration, such as 3s or 500ms")))?;
            host = host.dial_timeout(timeout);
        }
        "header" => {
            for (name, values) in place.table(key, value)? {
                let header = HeaderName::try_from(name.get_ref().as_ref());
                let header = header.map_err(|_| place.at(name, "it is not the name of a header"))?;
                for value in place.strings(name, values)? {
                    // The value is not shown: it may be a secret.
                    let value = HeaderValue::try_from(value);
                    let value = value.map_err(|_| place.at(name, "it has characters that no header can carry"))?;
                    host = host.header(header.clone(), value);
                }
            }
        }
        _ => {
            let known =
                "server, host, capabilities, ca, client, skip_verify, header, override_path and dial_timeout are";
            return Err(place.at(key, format!("it is not known here ({known})")));
        }
    }
    Ok(host)
}

fn capabilities(place: &Place<'_>, key: &Key<'_>, value: &Value<'_>) -> Result<BTreeSet<Capability>> {
    let names = place.strings(key, value)?;
    let read = |name: &str| match name.to_ascii_lowercase().as_str() {
        "pull" => Ok(Capability::Pull),
        "resolve" => Ok(Capability::Resolve),
        "push" => Ok(Capability::Push),
        _ => Err(place.at(key, format!("'{name}' is none of pull, resolve and push"))),
    };
    let found = names.into_iter().map(read).collect::<Result<BTreeSet<_>>>()?;
    if found.is_empty() {
        return Ok([Capability::Pull, Capability::Resolve, Capability::Push].into());
    }
    Ok(found)
}

/// `"both"`, `["both", ...]` or `[["cert", "key"], ["both"], ["both", ""]]`.
fn clients<'v>(place: &Place<'_>, key: &Key<'_>, value: &'v Value<'_>) -> Result<Vec<(&'v str, &'v str)>> {
    let Some(list) = value.get_ref().as_array() else {
        let both = place.string(key, value)?;
        return Ok(vec![(both, both)]);
    };
    let one = |entry: &'v Value<'_>| match place.strings(key, entry)?[..] {
        [both] | [both, ""] => Ok((both, both)),
        [certificate, private] => Ok((certificate, private)),
        _ => Err(place.at(key, "a client is a certificate's file and its key's")),
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Host>> {
        let own = Url::parse("https://own.example").unwrap();
        parse(text, Path::new("/certs.d/own.example/hosts.toml"), &own)
    }

    #[test]
    fn a_whole_file() {
        let text = r#"
            server = "https://upstream.example/prefix"
            skip_verify = true
            [host."https://z.example"]
              capabilities = ["PULL", "resolve"]
              ca = ["one.pem", "/etc/two.pem"]
              client = [["c.pem", "c.key"], ["both.pem", ""]]
              dial_timeout = "1m"
              [host."https://z.example".header]
                x-one = "1"
                x-two = ["a", "b"]
            [host."http://a.example:5000/root"]
              override_path = true
              client = "both.pem"
            [host."a.example"]
        "#;
        let hosts = read(text).unwrap();
        let urls: Vec<_> = hosts.iter().map(|host| host.url.as_str()).collect();
        let expected = [
            "https://z.example/v2",
            "http://a.example:5000/root",
            "https://a.example/v2",
            "https://upstream.example/prefix/v2",
        ];
        assert_eq!(urls, expected);
        assert_eq!(hosts[0].capabilities, [Capability::Pull, Capability::Resolve].into());
        assert_eq!(
            hosts[0].authorities,
            ["/certs.d/own.example/one.pem", "/etc/two.pem"].map(std::path::PathBuf::from)
        );
        assert_eq!(hosts[0].identities[0].key, Path::new("/certs.d/own.example/c.key"));
        assert_eq!(hosts[0].identities[1].key, Path::new("/certs.d/own.example/both.pem"));
        assert_eq!(hosts[0].headers.get_all("x-two").iter().count(), 2);
        assert!(!format!("{:?}", hosts[0].headers).contains("\"b\""));
        assert_eq!(hosts[0].dial_timeout.unwrap().as_secs(), 60);
        assert_eq!(hosts[0].verification, Verification::Required);
        assert_eq!(hosts[3].verification, Verification::Skipped);
        assert_eq!(read("").unwrap()[0].url.as_str(), "https://own.example/v2");
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_key() {
        for (text, line, part) in [
            ("server = 1", 1, "'server'"),
            ("\nserver = 'ftp://x'", 2, "neither http nor https"),
            ("server = 'https://u:p@x'", 1, "credentials"),
            ("a = 1", 1, "'a': it is not known here"),
            ("\n\n[host.'https://x']\nskip_verfy = true", 4, "'skip_verfy'"),
            ("[host.'https://x']\n\ncapabilities = ['pull', 'fly']", 3, "'fly'"),
            ("[host.'https://x']\nskip_verify = 'yes'", 2, "'skip_verify'"),
            ("[host.'https://x']\nclient = [['a', 'b', 'c']]", 2, "'client'"),
            ("[host.'https://x']\ndial_timeout = 'soon'", 2, "soon"),
            ("[host.'https://x'.header]\n'a b' = 'c'", 2, "'a b'"),
            ("[host]\nx = 1", 2, "'x'"),
            ("x = ", 1, ""),
            ("[host.'https://x']\n[host.'https://x']", 2, ""),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            let message = error.to_string();
            let place = format!("/certs.d/own.example/hosts.toml, line {line}: ");
            assert!(message.contains(&place) && message.contains(part), "{text}: {message}");
        }
        let secret = read("[host.'https://x'.header]\na = \"open\\u0001sesame\"").unwrap_err();
        assert!(!format!("{secret:?}").contains("sesame"), "{secret:?}");
    }
}
