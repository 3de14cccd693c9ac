use std::path::Path;

use longshore_linux::{AttrChange, Namespaces};
use oci_spec::runtime::Mount;

use super::Builder;
use super::mounts::Origin;
use super::op::{Attributes, FsParam, HostInput, MountOp, Op, Slot, Source, Target};
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
                self.hierarchy_mount(field, source, options, mount.destination(), None)
            }
            Mode::Legacy | Mode::Hybrid => self.cgroup_tree(field, mount.destination(), options),
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
        let own = HostInput::OwnCgroup {
            mounted: mounted.to_owned(),
        };
        Ok(Source::Detached(self.input(own, field)))
    }

    fn hierarchy_mount(
        &mut self,
        field: &str,
        source: Source,
        options: &MountOptions,
        at: &Path,
        keep: Option<Slot>,
    ) -> Result<()> {
        let at = in_root(&format!("{field}.destination"), at)?;
        let origin = match source {
            Source::Detached(_) => Origin::Host,
            _ => Origin::New,
        };
        let op = MountOp {
            source,
            attr: Attributes {
                change: options.of_new(),
                locked: None,
            },
            tree_attr: AttrChange::default(),
            propagation: self.propagation(options, origin),
            at,
            target: Target::Directory,
            copy_up: false,
            keep,
        };
        self.step(field, Op::Mount(Box::new(op)));
        Ok(())
    }

    fn cgroup_tree(&mut self, field: &str, destination: &Path, options: &MountOptions) -> Result<()> {
        let facts = self.facts;
        let mode = FsParam {
            key: c"mode".into(),
            value: Some(c"755".into()),
        };
        let tmpfs = Source::Fs {
            fs_type: c"tmpfs".into(),
            params: vec![mode],
            fallback: None,
        };
        let keep = options.is_read_only().then(|| self.slot());
        self.hierarchy_mount(field, tmpfs, &options.without_read_only(), destination, keep)?;
        for (mounted, words) in facts.cgroups.v1_hierarchies() {
            let Some(name) = mounted.file_name() else { continue };
            let params = words
                .split(',')
                .map(|word| parameter(field, word))
                .collect::<Result<Vec<_>>>()?;
            let source = self.hierarchy(field, "cgroup", &params, mounted)?;
            self.hierarchy_mount(field, source, options, &destination.join(name), None)?;
            for alias in words
                .split(',')
                .filter(|w| words.contains(',') && !w.contains('=') && *w != name)
            {
                let parent = in_root(field, destination)?;
                let target = cstring(field, name.as_encoded_bytes())?;
                let name = cstring(field, alias)?;
                self.step(field, Op::Symlink { parent, name, target });
            }
        }
        if let Some(slot) = keep {
            self.step(field, Op::Close(slot));
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
