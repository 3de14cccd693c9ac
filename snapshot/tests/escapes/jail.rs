//! A snapshot with a canary tree around it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use longshore_linux::Mount;
use longshore_snapshot::conformance::Mounted;
use longshore_snapshot::{
    ApplyOptions, ErrorKind, Labels, NativeSnapshotter, OverlaySnapshotter, Snapshotter, apply_layer,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::case::{Case, Check, Outcome, Ways};
use crate::common::Tree;
use crate::common::layer::Layer;

/// What a layer is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A copy of the base.
    Native,
    /// An empty upper directory on the base.
    Overlay,
    /// An upper directory that the base's files were put into before.
    Filled,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Native, Self::Overlay, Self::Filled];
}

/// A temporary directory with a snapshotter and the canary tree in it.
pub(crate) struct Jail {
    temp: tempfile::TempDir,
    place: Place,
    snapshotter: Box<dyn Snapshotter>,
    /// What is around the snapshot, before.
    around: Tree,
}

impl Jail {
    pub(crate) async fn new(place: Place) -> Self {
        // In memory if possible: each commit syncs its filesystem.
        let temp = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let root = temp.path().join("store");
        let snapshotter: Box<dyn Snapshotter> = match place {
            Place::Native => Box::new(NativeSnapshotter::open(root).await.unwrap()),
            Place::Overlay | Place::Filled => Box::new(OverlaySnapshotter::open(root).await.unwrap()),
        };
        let mut jail = Self {
            temp,
            place,
            snapshotter,
            around: Tree(Default::default()),
        };
        jail.hang_up_the_canary();
        jail.around = jail.read();
        jail
    }

    fn hang_up_the_canary(&self) {
        let outside = self.outside();
        for dir in ["etc", "dir/inner"] {
            fs::create_dir_all(outside.join(dir)).unwrap();
        }
        for (name, mode) in [
            ("etc/passwd", 0o644),
            ("secret", 0o400),
            ("setuid", 0o4755),
            ("dir/file", 0o600),
        ] {
            fs::write(outside.join(name), "canary").unwrap();
            fs::set_permissions(outside.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("secret", outside.join("link")).unwrap();
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.temp.path().join("outside")
    }

    /// The canary tree, and the names beside it.
    fn read(&self) -> Tree {
        let mut tree = Tree::read(&self.outside());
        for entry in fs::read_dir(self.temp.path()).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            tree.0.insert(format!("../{name}"), String::new());
        }
        tree
    }

    /// Whether the canary lives.
    pub(crate) fn check(&self) -> Result<(), String> {
        let now = self.read();
        let different: Vec<_> = (self.around.0.iter())
            .filter(|(path, line)| now.0.get(*path) != Some(line))
            .chain(now.0.iter().filter(|(path, _)| !self.around.0.contains_key(*path)))
            .map(|(path, line)| format!("{path}: {line}"))
            .collect();
        match different.is_empty() {
            true => Ok(()),
            false => Err(format!("changed outside: {different:?}")),
        }
    }

    /// Applies the case's layer.
    pub(crate) async fn attack(&self, case: &Case) -> Result<(), String> {
        let base = case.base.clone();
        let below = match self.place {
            Place::Filled => Layer::new().dir("filler"),
            _ => base.clone(),
        };
        let mounts = self.snapshotter.prepare("below", None, Labels::new()).await.unwrap();
        apply(&mounts, below).unwrap();
        let below = mounts[0].source.clone();
        self.snapshotter.commit("below", "base", Labels::new()).await.unwrap();
        let before = Tree::read(&below);
        let attacked = self.snapshotter.prepare("attacked", Some("base"), Labels::new());
        let mounts = attacked.await.unwrap();
        if self.place == Place::Filled {
            apply(&mounts, base).unwrap();
        }

        let ways = self.ways(&written(&mounts[0]));
        let answer = apply(&mounts, (case.layer)(&ways));
        self.check()?;
        before.assert_same(&Tree::read(&below), "the parent");
        let applied = match (answer, &case.outcome) {
            (Ok(_), Outcome::Applied) => true,
            (Err(error), Outcome::Refused(text))
                if error.kind() == ErrorKind::InvalidLayer && error.to_string().contains(text) =>
            {
                false
            }
            (answer, _) => return Err(format!("{answer:?}")),
        };
        let view = Mounted::new(&mounts);
        for check in &case.shows {
            see(view.fd(), check, &ways).map_err(|what| format!("{check:?}: {what} (applied: {applied})"))?;
        }
        drop(view);
        // What it left can be taken away, and nothing else goes with it.
        self.snapshotter.remove("attacked").await.unwrap();
        self.check()?;
        before.assert_same(&Tree::read(&below), "the parent, after the removal");
        Ok(())
    }

    fn ways(&self, root: &Path) -> Ways {
        let depth = root.strip_prefix(self.temp.path()).unwrap().components().count();
        Ways {
            out: self.outside().to_str().unwrap().to_owned(),
            up: format!("{}outside", "../".repeat(depth)),
        }
    }
}

fn apply(mounts: &[Mount], layer: Layer) -> longshore_snapshot::Result<longshore_snapshot::Applied> {
    apply_layer(mounts, &layer.done()[..], &ApplyOptions::default())
}

/// The directory that a layer is written to.
fn written(mount: &Mount) -> PathBuf {
    match mount.value_of("upperdir") {
        Some(upper) => PathBuf::from(upper),
        None => mount.source.clone(),
    }
}

fn see(root: &OwnedFd, check: &Check, ways: &Ways) -> Result<(), String> {
    let open = |path: &str, flags: OFlags| open(root, &path.replace("OUT", &ways.out), flags);
    let inode = |path: &str| {
        let fd = open(path, OFlags::PATH)?;
        let stat = rustix::fs::fstat(fd).map_err(|errno| errno.to_string())?;
        Ok::<_, String>((stat.st_dev, stat.st_ino))
    };
    let holds = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
    match check {
        Check::Text(path, text) => {
            let mut content = String::new();
            let mut file = fs::File::from(open(path, OFlags::RDONLY)?);
            std::io::Read::read_to_string(&mut file, &mut content).map_err(|error| error.to_string())?;
            holds(content == *text, format!("has '{content}'"))
        }
        Check::Same(one, other) => holds(inode(one)? == inode(other)?, "are two files".into()),
        Check::Apart(one, other) => holds(inode(one)? != inode(other)?, "are one file".into()),
        Check::Gone(path) => {
            let found = open(path, OFlags::PATH | OFlags::NOFOLLOW);
            holds(found.is_err(), "is there".into())
        }
        Check::Leads(path, target) => {
            let fd = open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
            let found = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|errno| errno.to_string())?;
            let expected = target.replace("OUT", &ways.out);
            holds(found.as_bytes() == expected.as_bytes(), format!("leads to {found:?}"))
        }
        Check::Mode(path, mode) => {
            let fd = fs::File::from(open(path, OFlags::PATH | OFlags::NOFOLLOW)?);
            let found = fd.metadata().map_err(|error| error.to_string())?.mode() & 0o7777;
            holds(found == *mode, format!("is {found:o}"))
        }
    }
}

/// As a container would: every link stays in the root.
fn open(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|errno| format!("{path}: {errno}"))
}
