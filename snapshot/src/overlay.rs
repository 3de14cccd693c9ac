use std::path::{Path, PathBuf};

use longshore_linux::Mount;
use rustix::fs::Mode;

use crate::local::{Layout, Local, make_root, open, snapshotter};
use crate::probe::{self, Attributes};
use crate::store::Store;
use crate::{Error, Kind, Result, at};

/// How many lower layers the kernel takes.
const LAYERS_MAX: usize = 500;
/// When options are longer, layers get their short names. mount(2) takes a page of them, and containerd's clients, from this length on, name the layers from the
/// directory that they have in common.
const LONG_OPTIONS: usize = 4096 - 512;

/// The snapshotter that merges layers with overlayfs: making a snapshot costs the same whatever is in its parent.
///
/// Its files are `<root>/snapshots/<id>/fs`, and `work` for the kernel's own use. A snapshot on one layer, or on none, is a bind mount.
/// Where the options of a mount would be longer than mount(2) takes, its lower directories have short names, symbolic links in `<root>/l`: named from there
/// ([`Mount::in_common_dir`]), those of 500 layers fit into a page. That is as many as the kernel merges.
///
/// A snapshot's mount says `index=off`, so that the same lower directories serve many mounts, and `userxattr` where the caller may not set
/// `trusted.` attributes (rootless).
///
/// Must be used within a tokio runtime.
#[derive(Debug)]
pub struct OverlaySnapshotter(Local<Overlay>);

impl OverlaySnapshotter {
    /// Opens the snapshotter at `root`, making the directory, for this process alone.
    ///
    /// It is tried out first: as root by a mount that is attached nowhere; as an ordinary user, who can mount only in a user namespace, by
    /// what can be known without one: kernel version, settings, kind of filesystem, attributes and whiteouts.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) with the reason, [`InUse`](crate::ErrorKind::InUse),
    /// [`Corrupt`](crate::ErrorKind::Corrupt), and what the system answers.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        open(move || {
            let store = Store::open(&root)?;
            let unsupported = |reason| Error::Unsupported {
                snapshotter: "overlay",
                path: store.root().to_owned(),
                reason,
            };
            check_path(store.root()).map_err(unsupported)?;
            let attributes = probe::overlay(store.dirs()).map_err(unsupported)?;
            Ok(Self(Local::new(store, Overlay { attributes })))
        })
        .await
    }

    /// Where it keeps its files.
    pub fn root(&self) -> &Path {
        self.0.root()
    }
}

snapshotter!(OverlaySnapshotter, "overlay");

/// The directories are named in mount options, where a few characters mean something else.
fn check_path(root: &Path) -> std::result::Result<(), String> {
    let text = root
        .to_str()
        .ok_or("the path is not UTF-8, and it must appear in mount options")?;
    match text.chars().find(|c| matches!(c, ':' | ',' | '\\') || c.is_control()) {
        Some(c) => Err(format!(
            "'{}' in the path means something else in mount options; choose another directory",
            c.escape_default()
        )),
        None => Ok(()),
    }
}

#[derive(Debug)]
struct Overlay {
    attributes: Attributes,
}

impl Layout for Overlay {
    fn make(&self, store: &Store, id: u64, kind: Kind, parents: &[u64]) -> Result<()> {
        if parents.len() > LAYERS_MAX {
            return Err(Error::Unsupported {
                snapshotter: "overlay",
                path: store.root().to_owned(),
                reason: format!(
                    "the kernel merges {LAYERS_MAX} layers at most, and these are {}; join some of the image's, or take the native snapshotter",
                    parents.len()
                ),
            });
        }
        if kind == Kind::View && !parents.is_empty() {
            return Ok(());
        }
        make_root(store, id, parents.first().copied())?;
        if kind == Kind::Active {
            rustix::fs::mkdirat(store.dirs(), format!("{id}/work"), Mode::RWXU)
                .map_err(at::failed("creating", store.path(id, "work")))?;
        }
        Ok(())
    }

    fn mounts(&self, store: &Store, id: u64, kind: Kind, parents: &[u64]) -> Result<Vec<Mount>> {
        let fs = |id| store.path(id, "fs");
        match (kind, parents) {
            (Kind::View, []) => return Ok(vec![Mount::bind(fs(id)).option("ro")]),
            (Kind::View, [only]) => return Ok(vec![Mount::bind(fs(*only)).option("ro")]),
            (_, []) => return Ok(vec![Mount::bind(fs(id)).option("rw")]),
            _ => {}
        }
        let mut options = vec!["index=off".to_owned()];
        if self.attributes == Attributes::User {
            options.push("userxattr".to_owned());
        }
        if kind == Kind::View {
            options.push("ro".to_owned());
        } else {
            options.push(format!("workdir={}", text(store.path(id, "work"))));
            options.push(format!("upperdir={}", text(fs(id))));
        }
        let lowers: Vec<String> = parents.iter().map(|parent| text(fs(*parent))).collect();
        options.push(format!("lowerdir={}", lowers.join(":")));
        if options.iter().map(|option| option.len() + 1).sum::<usize>() > LONG_OPTIONS {
            let lowers: Result<Vec<_>> = parents
                .iter()
                .map(|parent| store.short_name(*parent).map(text))
                .collect();
            options.pop();
            options.push(format!("lowerdir={}", lowers?.join(":")));
        }
        Ok(vec![Mount {
            fs_type: "overlay".into(),
            source: "overlay".into(),
            target: None,
            options,
        }])
    }
}

fn text(path: PathBuf) -> String {
    path.to_str().expect("the root was checked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mount_options_can_not_hold() {
        assert!(check_path(Path::new("/var/lib/longshore")).is_ok());
        for bad in ["/a:b", "/a,b", "/a\\b", "/a\nb"] {
            assert!(check_path(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
