use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::op::InRoot;
use crate::{Error, Result};

/// A string for the kernel; the spec's field is to blame for a null in it.
pub(crate) fn cstring(field: &str, text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(field, "it has a null character"))
}

pub(crate) fn cpath(field: &str, path: &Path) -> Result<CString> {
    cstring(field, path.as_os_str().as_bytes())
}

pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::InvalidSpec {
        field: field.into(),
        reason: reason.into(),
    }
}

pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Unsupported {
        field: field.into(),
        reason: reason.into(),
    }
}

/// Lays a path inside the root out. `..` is taken lexically, and never above the root.
pub(crate) fn in_root(field: &str, path: &Path) -> Result<InRoot> {
    let mut names: Vec<&[u8]> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.as_bytes()),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let mut laid_out = InRoot {
        names: Vec::with_capacity(names.len()),
        prefixes: Vec::with_capacity(names.len()),
    };
    let mut prefix = Vec::new();
    for name in names {
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(name);
        if prefix.len() >= 4096 {
            return Err(invalid(field, "the path is longer than 4095 bytes"));
        }
        laid_out.names.push(cstring(field, name)?);
        laid_out.prefixes.push(cstring(field, prefix.clone())?);
    }
    Ok(laid_out)
}

/// A path of the host: as it is when absolute, else below the bundle.
pub(crate) fn on_host(bundle: &Path, path: &Path) -> PathBuf {
    bundle.join(path)
}

/// The path without `.`, `..` and empty names, by its text alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}
