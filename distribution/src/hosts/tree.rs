use std::io::{self, Read};
use std::path::{Path, PathBuf};

use url::Url;

use super::{Host, file};
use crate::{Error, Result};

/// The largest `hosts.toml` that is read.
const MAX_FILE: u64 = 1 << 20;

/// What a tree says of a registry: the first directory that there is for it.
pub(super) fn find(tree: &Path, registry: &str, own: &Url) -> Result<Option<Vec<Host>>> {
    for name in names(registry) {
        let directory = tree.join(name);
        match std::fs::metadata(&directory) {
            Ok(found) if found.is_dir() => return read(&directory, own).map(Some),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(unreadable(&directory, &error)),
        }
    }
    Ok(None)
}

/// The directories that a registry may have, in containerd's order.
fn names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    let port = registry
        .rsplit_once(':')
        .filter(|(host, port)| !port.is_empty() && !host.is_empty() && !port.contains(']'));
    if let Some((host, port)) = port {
        names.push(format!("{host}_{port}_"));
    }
    // A name of dots would lead out of the tree.
    if registry.contains(|c: char| c.is_ascii_alphanumeric()) {
        names.push(registry.to_owned());
    }
    names.push("_default".to_owned());
    names
}

fn read(directory: &Path, own: &Url) -> Result<Vec<Host>> {
    let path = directory.join("hosts.toml");
    match std::fs::File::open(&path) {
        Ok(opened) => {
            let mut text = String::new();
            let mut opened = opened.take(MAX_FILE + 1);
            opened
                .read_to_string(&mut text)
                .map_err(|error| unreadable(&path, &error))?;
            if text.len() as u64 > MAX_FILE {
                return Err(bad(&path, format!("it is larger than {MAX_FILE} bytes")));
            }
            file::parse(&text, &path, own)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![with_docker_files(directory, own)?]),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

/// The registry itself, with what Docker's way of naming files says of it.
fn with_docker_files(directory: &Path, own: &Url) -> Result<Host> {
    let mut host = Host::new(own.as_str())?;
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| unreadable(directory, &error))?.path());
    }
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => host = host.authority_file(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.exists() {
                    return Err(bad(&path, format!("its key {} is missing", key.display())));
                }
                host = host.client_certificate(path, key);
            }
            _ => {}
        }
    }
    Ok(host)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    bad(path, format!("it can't be read ({error})"))
}

fn bad(path: &Path, reason: String) -> Error {
    Error::HostsFile {
        place: path.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Url {
        Url::parse("https://r.example:5000").unwrap()
    }

    #[test]
    fn directories() {
        let of = |registry| names(registry).join(" ");
        assert_eq!(of("docker.io"), "docker.io _default");
        assert_eq!(of("r.example:5000"), "r.example_5000_ r.example:5000 _default");
        assert_eq!(of("[::1]:5000"), "[::1]_5000_ [::1]:5000 _default");
        assert_eq!(of("[::1]"), "[::1] _default");
        assert_eq!(of(".."), "_default");
    }

    #[test]
    fn the_first_directory_counts() {
        let tree = tempfile::tempdir().unwrap();
        let urls = |registry: &str| {
            let found = find(tree.path(), registry, &own()).unwrap();
            found.map(|hosts| {
                hosts
                    .iter()
                    .map(|host| host.url.to_string())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        let put = |name: &str, text: &str| {
            std::fs::create_dir_all(tree.path().join(name)).unwrap();
            std::fs::write(tree.path().join(name).join("hosts.toml"), text).unwrap();
        };
        assert_eq!(urls("r.example:5000"), None);
        put("_default", "[host.\"https://any.example\"]\n");
        assert_eq!(
            urls("r.example:5000").as_deref(),
            Some("https://any.example/v2 https://r.example:5000/v2")
        );
        put("r.example_5000_", "server = 'http://other.example'\n");
        assert_eq!(urls("r.example:5000").as_deref(), Some("http://other.example/v2"));
        assert_eq!(
            urls("r.example:5001").as_deref(),
            Some("https://any.example/v2 https://r.example:5000/v2")
        );
        assert_eq!(find(Path::new("/nonexistent/tree"), "a", &own()).unwrap(), None);
    }

    #[test]
    fn files_named_as_docker_names_them() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("r.example:5000");
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "README"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let hosts = find(tree.path(), "r.example:5000", &own()).unwrap().unwrap();
        assert_eq!(hosts.len(), 1);
        assert_eq!(hosts[0].authorities, [directory.join("ca.crt")]);
        assert_eq!(hosts[0].identities[0].key, directory.join("client.key"));
        std::fs::remove_file(directory.join("client.key")).unwrap();
        let error = find(tree.path(), "r.example:5000", &own()).unwrap_err().to_string();
        assert!(error.contains("client.key"), "{error}");
    }
}
