use std::path::Path;

use longshore_linux::{AttrChange, MountAttr, Namespaces};
use oci_spec::runtime::Mount;

use super::Builder;
use super::op::{FsParam, HostInput, MountOp, Op, Source, Target};
use super::options::MountOptions;
use super::paths::{cstring, in_root, invalid, unsupported};
use crate::Result;
use crate::cgroup::Mode;

impl Builder<'_> {
    /// A mount of type `cgroup`: on v2 the container's part of the tree, on v1 a directory with one hierarchy in each of its own.
    pub(super) fn cgroup_mount(&mut self, field: &str, mount: &Mount, options: &MountOptions) -> Result<()> {
        if let Some(param) = options.params.first() {
            let reason = format!("'{}' is not an option of a cgroup mount", param.key.to_string_lossy());
            return Err(invalid(format!("{field}.options"), reason));
        }
        let facts = self.facts;
        match facts.cgroups.mode() {
            Mode::Unified => {
                let at = facts.cgroups.v2_mount().unwrap_or(Path::new("/sys/fs/cgroup"));
                let source = self.hierarchy(field, "cgroup2", &[], at)?;
                self.hierarchy_mount(field, source, options.attr, mount.destination())
            }
            Mode::Legacy | Mode::Hybrid => self.cgroup_tree(field, mount.destination(), options.attr),
            _ => Err(unsupported(
                format!("{field}.type"),
                "this machine has no cgroup hierarchy mounted",
            )),
        }
    }

    /// One hierarchy: mounted again where the container's cgroup namespace makes its own group the root, else the group bound.
    fn hierarchy(&mut self, field: &str, fs_type: &str, params: &[FsParam], mounted: &Path) -> Result<Source> {
        if self.namespaces.has(Namespaces::CGROUP) {
            return Ok(Source::Fs {
                fs_type: cstring(field, fs_type)?,
                params: params.to_vec(),
                fallback: None,
            });
        }
        Ok(Source::Detached(self.input(
            HostInput::OwnCgroup {
                mounted: mounted.to_owned(),
            },
            field,
        )))
    }

    fn hierarchy_mount(&mut self, field: &str, source: Source, attr: AttrChange, at: &Path) -> Result<()> {
        let at = in_root(&format!("{field}.destination"), at)?;
        let op = MountOp {
            source,
            attr,
            tree_attr: AttrChange::default(),
            at,
            target: Target::Directory,
        };
        self.step(field, Op::Mount(Box::new(op)));
        Ok(())
    }

    fn cgroup_tree(&mut self, field: &str, destination: &Path, attr: AttrChange) -> Result<()> {
        let facts = self.facts;
        let writable = AttrChange {
            set: attr.set - MountAttr::RDONLY,
            ..attr
        };
        let mode = FsParam {
            key: c"mode".into(),
            value: Some(c"755".into()),
        };
        let tmpfs = Source::Fs {
            fs_type: c"tmpfs".into(),
            params: vec![mode],
            fallback: None,
        };
        self.hierarchy_mount(field, tmpfs, writable, destination)?;
        for (mounted, words) in facts.cgroups.v1_hierarchies() {
            let Some(name) = mounted.file_name() else { continue };
            let params = words
                .split(',')
                .map(|word| parameter(field, word))
                .collect::<Result<Vec<_>>>()?;
            let source = self.hierarchy(field, "cgroup", &params, mounted)?;
            self.hierarchy_mount(field, source, attr, &destination.join(name))?;
            for alias in words
                .split(',')
                .filter(|w| words.contains(',') && !w.contains('=') && *w != name)
            {
                let parent = in_root(field, destination)?;
                let target = cstring(field, name.as_encoded_bytes())?;
                self.step(
                    field,
                    Op::Symlink {
                        parent,
                        name: cstring(field, alias)?,
                        target,
                    },
                );
            }
        }
        if attr.set.contains(MountAttr::RDONLY) {
            self.step(field, Op::Close(in_root(field, destination)?));
        }
        Ok(())
    }
}

fn parameter(field: &str, word: &str) -> Result<FsParam> {
    Ok(match word.split_once('=') {
        Some((key, value)) => FsParam {
            key: cstring(field, key)?,
            value: Some(cstring(field, value)?),
        },
        None => FsParam {
            key: cstring(field, word)?,
            value: None,
        },
    })
}
