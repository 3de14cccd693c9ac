use crate::apply::Limits;
use crate::apply::archive::invalid;
use crate::{Error, Result};

/// The name that hides a file of the layers below: this and the file's name.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name that hides all that the layers below have in the directory it is in.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names by which AUFS kept its own books; old images have them.
const AUFS: &[u8] = b".wh..wh.";

/// What the path of an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// The root directory itself.
    Root,
    /// A file of that name in that directory.
    Name(&'a [u8], &'a [u8]),
    /// Hide that name in that directory.
    Whiteout(&'a [u8], &'a [u8]),
    /// Hide everything in that directory.
    Opaque(&'a [u8]),
    /// AUFS's own files: nothing to do.
    Ignored,
}

/// A path without empty and `.` components, `..` taken away lexically, joined by single slashes; absolute ones are taken from the root.
///
/// # Errors
/// When it goes above the root, or is too deep.
pub(super) fn normalize(path: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    if is_normal(path) && path.iter().filter(|b| **b == b'/').count() < limits.depth {
        return Ok(path.to_vec());
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.pop().is_none() => return Err(escapes(path)),
            b".." => {}
            part => parts.push(part),
        }
    }
    if parts.len() > limits.depth {
        return Err(invalid(path, format!("it is deeper than {} directories", limits.depth)));
    }
    Ok(parts.join(&b'/'))
}

/// The common case: nothing to take away.
fn is_normal(path: &[u8]) -> bool {
    path.split(|b| *b == b'/')
        .all(|part| !matches!(part, b"" | b"." | b".."))
}

fn escapes(path: &[u8]) -> Error {
    invalid(path, "the path leaves the root directory")
}

/// Tells what a normalized path asks for.
pub(super) fn subject<'a>(path: &'a [u8], original: &[u8]) -> Result<Subject<'a>> {
    if path.is_empty() {
        return Ok(Subject::Root);
    }
    let (parent, name) = split(path);
    if path.starts_with(AUFS) && path != OPAQUE {
        return Ok(Subject::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Subject::Name(parent, name)),
        Some(_) if name == OPAQUE => Ok(Subject::Opaque(parent)),
        Some(_) if name.starts_with(AUFS) => Ok(Subject::Ignored),
        Some(b"" | b"." | b"..") => Err(invalid(original, "it is a whiteout of no file")),
        Some(hidden) => Ok(Subject::Whiteout(parent, hidden)),
    }
}

/// Directory and last component of a normalized path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// `dir/name`, or `name` when the directory is the root.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(path: &str) -> Option<String> {
        normalize(path.as_bytes(), &Limits::default())
            .ok()
            .map(|p| String::from_utf8(p).unwrap())
    }

    #[test]
    fn normalizing() {
        for (path, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("a/../b", Some("b")),
            ("a/..", Some("")),
            (".", Some("")),
            ("/", Some("")),
            ("..", None),
            ("a/../../b", None),
            ("/../b", None),
            ("...", Some("...")),
        ] {
            assert_eq!(norm(path).as_deref(), expected, "{path}");
        }
        let deep = "d/".repeat(1025);
        assert_eq!(norm(&deep), None);
    }

    #[test]
    fn subjects() {
        let of = |path: &'static str| subject(path.as_bytes(), path.as_bytes()).ok();
        assert_eq!(of(""), Some(Subject::Root));
        assert_eq!(of("a"), Some(Subject::Name(b"", b"a")));
        assert_eq!(of("a/.wh.b"), Some(Subject::Whiteout(b"a", b"b")));
        assert_eq!(of("a/.wh..wh..opq"), Some(Subject::Opaque(b"a")));
        assert_eq!(of(".wh..wh..opq"), Some(Subject::Opaque(b"")));
        assert_eq!(of(".wh..wh.plnk/12.34"), Some(Subject::Ignored));
        assert_eq!(of("a/.wh..wh.orph"), Some(Subject::Ignored));
        assert_eq!(of("a/.wh."), None);
        assert_eq!(of("a/.wh.."), None);
        assert_eq!(of("a/.wh..."), None);
        assert_eq!(of("a/.wh...."), Some(Subject::Whiteout(b"a", b"...")));
    }
}
