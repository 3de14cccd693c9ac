use std::path::Path;

use longshore_linux::{AttrChange, Namespaces};
use oci_spec::runtime::Mount;

use super::mounts::Origin;
use super::op::{Attributes, Fallback, FsParam, HostInput, MountOp, Op, Over, Slot, Source, Target};
use super::options::MountOptions;
use super::paths::{cpath, cstring, in_root, invalid, unsupported};
use super::{Builder, Privilege};
use crate::Result;
use crate::cgroup::Mode;

/// Where a hierarchy, or the tree of all, is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// It stays at hand.
    AtHand(Slot),
    /// In what is at hand.
    Within(Slot),
}

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
                let source = self.unified(field)?;
                self.hierarchy_mount(field, source, options, mount.destination(), Place::Anywhere)
            }
            Mode::Legacy | Mode::Hybrid => self.cgroup_tree(field, mount.destination(), options),
            _ => Err(unsupported(
                format!("{field}.type"),
                "this machine has no cgroup hierarchy mounted",
            )),
        }
    }

    /// The v2 tree: its root is that of the container's cgroup namespace, if it has one, as others have it too. Where the kernel does not let a
    /// user namespace mount it, a part of the host's own mount: the same.
    fn unified(&mut self, field: &str) -> Result<Source> {
        let facts = self.facts;
        let (mounted, inherited) = facts.cgroups.v2().unwrap_or((Path::new("/sys/fs/cgroup"), None));
        let fallback = match (
            self.namespaces.has(Namespaces::USER),
            self.namespaces.has(Namespaces::CGROUP),
        ) {
            (false, _) => None,
            (true, false) => Some(Fallback::Tree(cpath(field, mounted)?)),
            (true, true) if self.host_makes() => {
                let slot = self.input(own(mounted, inherited.unwrap_or(Path::new("")), facts.privilege), field);
                Some(Fallback::Detached(slot))
            }
            (true, true) => None,
        };
        Ok(Source::Fs {
            fs_type: c"cgroup2".into(),
            params: Vec::new(),
            fallback,
        })
    }

    /// One hierarchy of v1: mounted again where the container's cgroup namespace makes its own group the root, else the group bound.
    /// `None` if nothing of it is to be seen from here.
    fn hierarchy(
        &mut self,
        field: &str,
        params: Vec<FsParam>,
        mounted: &Path,
        inherited: Option<&Path>,
    ) -> Option<Source> {
        if self.namespaces.has(Namespaces::CGROUP) {
            return Some(Source::Fs {
                fs_type: c"cgroup".into(),
                params,
                fallback: None,
            });
        }
        let slot = self.input(own(mounted, inherited?, self.facts.privilege), field);
        Some(match self.facts.privilege {
            Privilege::Full => Source::Detached(slot),
            Privilege::None => Source::Named(slot),
        })
    }

    fn hierarchy_mount(
        &mut self,
        field: &str,
        source: Source,
        options: &MountOptions,
        at: &Path,
        place: Place,
    ) -> Result<()> {
        let at = in_root(&format!("{field}.destination"), at)?;
        let origin = match source {
            Source::Detached(_) => Origin::Host,
            Source::Named(_) => Origin::Child,
            _ => Origin::New,
        };
        let (target, keep) = match place {
            Place::Anywhere => (Target::Directory, None),
            Place::AtHand(slot) => (Target::Directory, Some(slot)),
            Place::Within(slot) => (Target::Within(slot), None),
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
            target,
            copy_up: false,
            id_map: None,
            keep,
            label: None,
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
        let mut params = vec![mode];
        params.extend(self.context("tmpfs", &params));
        let tmpfs = Source::Fs {
            fs_type: c"tmpfs".into(),
            params,
            fallback: None,
        };
        let tree = self.slot();
        self.hierarchy_mount(
            field,
            tmpfs,
            &options.without_read_only(),
            destination,
            Place::AtHand(tree),
        )?;
        for (mounted, inherited, words) in facts.cgroups.v1_hierarchies() {
            let Some(name) = mounted.file_name() else { continue };
            let params = words
                .split(',')
                .map(|word| parameter(field, word))
                .collect::<Result<Vec<_>>>()?;
            let Some(source) = self.hierarchy(field, params, mounted, inherited) else {
                continue;
            };
            self.hierarchy_mount(field, source, options, &destination.join(name), Place::Within(tree))?;
            for alias in words
                .split(',')
                .filter(|w| words.contains(',') && !w.contains('=') && *w != name)
            {
                let at = in_root(field, &destination.join(alias))?;
                let target = cstring(field, name.as_encoded_bytes())?;
                let over = Over::Keep;
                self.step(field, Op::Symlink { at, target, over });
            }
        }
        let done = match options.is_read_only() {
            true => Op::Close(tree),
            false => Op::LetGo(tree),
        };
        self.step(field, done);
        Ok(())
    }
}

fn own(mounted: &Path, inherited: &Path, privilege: Privilege) -> HostInput {
    HostInput::OwnCgroup {
        mounted: mounted.to_owned(),
        inherited: inherited.to_owned(),
        privilege,
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
