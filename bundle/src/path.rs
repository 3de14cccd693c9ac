//! Paths inside a container, as text.

use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// An absolute path without `.`, `..`, double or trailing slashes; `..` at the root stays there.
pub(crate) fn clean(option: &'static str, path: &Path) -> Result<PathBuf> {
    let refuse = |reason: &str| Err(Error::option(option, path.display().to_string(), reason));
    let Some(text) = path.to_str() else {
        return refuse("it is not UTF-8, which the runtime spec needs");
    };
    if !path.is_absolute() {
        return refuse("it must be an absolute path");
    }
    if text.contains('\0') {
        return refuse("it has a NUL byte");
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        let cases = [
            ("/", "/"),
            ("/a//b/", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a/b/../../../c", "/c"),
        ];
        for (path, cleaned) in cases {
            assert_eq!(clean("path", Path::new(path)).expect(path), Path::new(cleaned));
        }
        for path in ["", "a", "./a", "/a\0"] {
            clean("path", Path::new(path)).expect_err(path);
        }
    }
}
