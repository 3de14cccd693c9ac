//! What mounts are made from.

use std::path::{Path, PathBuf};

use longshore_linux::{Depth, Namespaces};

use super::Builder;
use super::op::{Fallback, FsParam, HostInput, ShortName, Source};
use super::options::MountOptions;
use super::paths::{clean, cpath, cstring, in_root, invalid, on_host, unsupported};
use crate::Result;

/// The longest value that fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;
/// mount(2) takes one page of options.
const LONGEST_DATA: usize = 4095;
/// Since this kernel overlay layers can be given one by one.
const SEPARATE_LAYERS: (u32, u32) = (6, 8);

/// Parameters of common filesystems that are often left in the options of a bind mount.
const OF_FILESYSTEMS: [&str; 6] = ["gid", "mode", "nr_blocks", "nr_inodes", "size", "uid"];

impl Builder<'_> {
    /// The path inside the root, of one that is below the root's own path on the host.
    pub(super) fn inside(&self, path: &Path) -> Option<PathBuf> {
        let root = clean(self.root_path.as_ref()?);
        let inside = clean(path).strip_prefix(&root).map(Path::to_owned);
        inside.ok().filter(|_| path.is_absolute() && root != Path::new("/"))
    }

    /// A container with a user namespace may not be able to reach a source, or to mount a filesystem: then the host makes
    /// the mount, attached to nothing, and the child attaches it.
    pub(super) fn by_whom(&mut self, source: Source, field: &str) -> Source {
        let bound = matches!(source, Source::Bind { .. });
        let on_disk = matches!(&source, Source::Fs { fs_type, .. } if !of_the_namespaces(fs_type.to_bytes()));
        if self.host_makes() && (bound || on_disk) {
            Source::Detached(self.input(HostInput::Mount(source), field))
        } else {
            source
        }
    }

    /// What a mount is made from.
    pub(super) fn source(
        &mut self,
        field: &str,
        fs_type: &str,
        source: Option<&Path>,
        options: &mut MountOptions,
    ) -> Result<Source> {
        let bind = match fs_type {
            "bind" => Some(options.bind.unwrap_or(Depth::Tree)),
            _ => options.bind,
        };
        if let Some(depth) = bind {
            for param in options.params.drain(..) {
                let word = param.key.to_string_lossy().into_owned();
                // The kernel does not look at them, and specs have them that run elsewhere; anything else may be a mistyped `ro`.
                if !OF_FILESYSTEMS.contains(&word.as_str()) {
                    let reason = format!("'{word}' is not an option of a bind mount");
                    return Err(invalid(format!("{field}.options"), reason));
                }
                self.warnings.push(format!(
                    "{field}.options: '{word}' is left out: a bind mount does not take it"
                ));
            }
            if options.remount {
                return Ok(Source::There { params: None });
            }
            let path = source.ok_or_else(|| invalid(format!("{field}.source"), "a bind mount needs a source"))?;
            let path = on_host(&self.options.bundle, path);
            if let Some(inside) = self.inside(&path) {
                let at = in_root(&format!("{field}.source"), &inside)?;
                return Ok(Source::Inside { at, depth });
            }
            return Ok(Source::Bind {
                path: cpath(field, &path)?,
                depth,
            });
        }
        if fs_type.is_empty() {
            return Err(invalid(
                format!("{field}.type"),
                "it is missing, and the options do not say bind",
            ));
        }
        let mut params = std::mem::take(&mut options.params);
        if options.remount {
            let read_only = if options.is_read_only() { c"ro" } else { c"rw" };
            params.push(flag(read_only));
            params.extend(options.filesystem_flags().unwrap_or_default());
            return Ok(Source::There { params: Some(params) });
        }
        params.extend(self.context(fs_type, &params));
        if fs_type == "overlay" {
            return overlay(field, params, self.facts.kernel);
        }
        if let Some(source) = source.filter(|s| !s.as_os_str().is_empty()) {
            params.insert(
                0,
                FsParam {
                    key: c"source".into(),
                    value: Some(cpath(field, source)?),
                },
            );
        }
        self.check_owners(field, &params)?;
        let long = |p: &FsParam| p.value.as_ref().is_some_and(|v| v.count_bytes() > LONGEST_VALUE);
        let flags = options.filesystem_flags();
        let (Some(flags), false) = (&flags, params.iter().any(long)) else {
            if fs_type == "tmpfs" && params.iter().any(long) {
                let reason = "an option of a tmpfs is longer than 255 bytes";
                return Err(invalid(format!("{field}.options"), reason));
            }
            return legacy(field, fs_type, options.filesystem_bits(), &params);
        };
        params.extend_from_slice(flags);
        if options.is_read_only() && !of_the_namespaces(fs_type.as_bytes()) {
            // Not the mount alone: a disk that is read-only can't be mounted otherwise.
            params.push(flag(c"ro"));
        }
        let in_user_namespace = self.namespaces.has(Namespaces::USER);
        let fallback = (fs_type == "sysfs" && in_user_namespace).then(|| Fallback::ReadOnly(c"/sys".into()));
        Ok(Source::Fs {
            fs_type: cstring(field, fs_type)?,
            params,
            fallback,
        })
    }
}

impl Builder<'_> {
    /// The kernel answers an owner that is not mapped with "invalid argument"; this says which.
    fn check_owners(&self, field: &str, params: &[FsParam]) -> Result<()> {
        let Some(maps) = &self.id_maps else {
            return Ok(());
        };
        for param in params {
            let map = match param.key.to_bytes() {
                b"uid" => &maps.users,
                b"gid" => &maps.groups,
                _ => continue,
            };
            let id = param
                .value
                .as_ref()
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.parse().ok());
            if id.is_some_and(|id| !map.iter().any(|m| m.covers(id))) {
                let what = format!("{}={}", param.key.to_string_lossy(), id.unwrap_or_default());
                let reason = format!("{what}: the user namespace does not map it; leave the option out");
                return Err(invalid(format!("{field}.options"), reason));
            }
        }
        Ok(())
    }
}

/// Filesystems whose instance belongs to the namespaces of who mounts it.
fn of_the_namespaces(fs_type: &[u8]) -> bool {
    matches!(
        fs_type,
        b"proc" | b"sysfs" | b"mqueue" | b"devpts" | b"tmpfs" | b"cgroup" | b"cgroup2"
    )
}

/// An overlay, with its lower layers one by one where the kernel can, and by short names where it can't, so that neither their number nor the length
/// of their paths together is bounded by a page.
fn overlay(field: &str, mut params: Vec<FsParam>, kernel: (u32, u32)) -> Result<Source> {
    let source = FsParam {
        key: c"source".into(),
        value: Some(c"overlay".into()),
    };
    let mut separate = vec![source];
    for param in &params {
        match (param.key.to_bytes(), &param.value) {
            (b"lowerdir", Some(value)) => {
                for layer in split_layers(value.to_bytes()) {
                    separate.push(FsParam {
                        key: c"lowerdir+".into(),
                        value: Some(cstring(field, layer)?),
                    });
                }
            }
            _ => separate.push(param.clone()),
        }
    }
    let short = |p: &FsParam| p.value.as_ref().is_none_or(|v| v.count_bytes() <= LONGEST_VALUE);
    if kernel >= SEPARATE_LAYERS && separate.iter().all(short) {
        return Ok(Source::Fs {
            fs_type: c"overlay".into(),
            params: separate,
            fallback: None,
        });
    }
    if data_of(&params).len() > LONGEST_DATA {
        let names = short_names(field, &mut params)?;
        return by_mount(field, "overlay", 0, &params, names);
    }
    legacy(field, "overlay", 0, &params)
}

/// Gives the lower layers names of one or two characters, so that as many as an overlay may have fit into a page.
fn short_names(field: &str, params: &mut [FsParam]) -> Result<Vec<ShortName>> {
    let mut names = Vec::new();
    for param in params.iter_mut().filter(|p| p.key.as_c_str() == c"lowerdir") {
        let layers = split_layers(param.value.as_ref().map_or(b"".as_slice(), |value| value.to_bytes()));
        let mut list = Vec::new();
        for layer in layers {
            let name = short_name(names.len());
            if !list.is_empty() {
                list.push(b':');
            }
            list.extend_from_slice(name.as_bytes());
            names.push(ShortName {
                name: cstring(field, name)?,
                path: cstring(field, layer)?,
            });
        }
        param.value = Some(cstring(field, list)?);
    }
    Ok(names)
}

/// A number in letters.
fn short_name(mut number: usize) -> String {
    let mut name = String::new();
    loop {
        name.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return name;
        }
    }
}

/// Splits at colons; a backslash takes the meaning of the next character away, as the overlay filesystem reads it.
fn split_layers(value: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let layer = layers.last_mut().expect("there is always one");
        match byte {
            b':' => layers.push(Vec::new()),
            b'\\' => layer.extend(bytes.next()),
            _ => layer.push(byte),
        }
    }
    layers.retain(|l| !l.is_empty());
    layers
}

/// By mount(2), for values that fsconfig(2) does not take.
fn legacy(field: &str, fs_type: &str, flags: u32, params: &[FsParam]) -> Result<Source> {
    by_mount(field, fs_type, flags, params, Vec::new())
}

fn by_mount(field: &str, fs_type: &str, flags: u32, params: &[FsParam], names: Vec<ShortName>) -> Result<Source> {
    let source = params.iter().rev().find(|param| param.key.as_c_str() == c"source");
    let source = match source {
        Some(param) => param.value.clone().unwrap_or_default(),
        None => cstring(field, fs_type)?,
    };
    let data = data_of(params);
    if data.len() > LONGEST_DATA {
        let reason = format!("options of {} bytes; this kernel takes {LONGEST_DATA}", data.len());
        return Err(unsupported(format!("{field}.options"), reason));
    }
    Ok(Source::Legacy {
        fs_type: cstring(field, fs_type)?,
        source,
        flags,
        data: cstring(field, data)?,
        names,
    })
}

/// Options as mount(2) takes them.
fn data_of(params: &[FsParam]) -> Vec<u8> {
    let mut data = Vec::new();
    for param in params.iter().filter(|param| param.key.as_c_str() != c"source") {
        if !data.is_empty() {
            data.push(b',');
        }
        data.extend_from_slice(param.key.to_bytes());
        if let Some(value) = &param.value {
            // The categories of a security context have commas between them.
            let quote = if param.key.to_bytes().ends_with(b"context") {
                "\""
            } else {
                ""
            };
            data.push(b'=');
            data.extend_from_slice(quote.as_bytes());
            data.extend_from_slice(value.to_bytes());
            data.extend_from_slice(quote.as_bytes());
        }
    }
    data
}

fn flag(key: &std::ffi::CStr) -> FsParam {
    FsParam {
        key: key.into(),
        value: None,
    }
}
