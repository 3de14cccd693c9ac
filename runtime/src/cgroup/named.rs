use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::control::Cgroup;
use super::group::Group;
use super::host::{Home, Kind};
use super::path::{Location, Place, Unit};

/// A hierarchy that is mounted here, open.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) kind: Kind,
    pub(super) root: Group,
}

/// Which group it is, without a descriptor of its own.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) tree: Arc<Tree>,
    /// Relative to the hierarchy's root.
    pub(super) path: Arc<Path>,
    /// Its number, if it is known: a later group of the same path is another one.
    pub(super) inode: Option<u64>,
}

impl Name {
    /// Its path is the one of another group of the container, if they are the same.
    pub(super) fn new<'a>(
        tree: &Arc<Tree>,
        path: &Path,
        inode: Option<u64>,
        others: impl IntoIterator<Item = &'a Self>,
    ) -> Self {
        let mut others = others.into_iter();
        let same = others.find(|other| *other.path == *path);
        Self {
            tree: Arc::clone(tree),
            path: same.map_or_else(|| Arc::from(path), |other| Arc::clone(&other.path)),
            inode,
        }
    }

    /// The same, of which the number is known.
    pub(super) fn known_as(self, inode: u64) -> Self {
        let inode = Some(inode);
        Self { inode, ..self }
    }

    /// Whether it has the same place.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tree, &other.tree) && self.path == other.path
    }

    /// Opens it. One that is gone answers as the kernel does for those.
    pub(super) fn open(&self) -> Group {
        self.tree.root.open_as(&self.path, self.inode)
    }

    fn place(&self) -> Place {
        Place {
            mount: self.tree.root.path.clone(),
            path: self.path.to_path_buf(),
            inode: self.inode,
        }
    }
}

/// A container's group in one hierarchy.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Name,
    group: OnceLock<Group>,
}

impl Member {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            group: OnceLock::new(),
        }
    }

    /// One that is open already.
    pub(super) fn open(name: Name, group: Group) -> Self {
        Self {
            name,
            group: OnceLock::from(group),
        }
    }

    /// The group, opened at the first use, for as long as this lives.
    pub(super) fn group(&self) -> &Group {
        self.group.get_or_init(|| self.name.open())
    }

    pub(super) fn is_v2(&self) -> bool {
        self.name.tree.kind == Kind::V2
    }

    pub(super) fn serves(&self, home: Home, controller: &str) -> bool {
        match &self.name.tree.kind {
            Kind::V2 => home == Home::V2,
            Kind::V1 { controllers, .. } => home == Home::V1 && controllers.contains(controller),
        }
    }
}

/// The groups of one container while nothing is done to them: it holds no descriptor, but knows each group by the number that the kernel has given it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    names: Box<[Name]>,
    /// Those in hierarchies that are not mounted here.
    elsewhere: Vec<Place>,
    unit: Option<Arc<Unit>>,
}

impl Names {
    pub(super) fn new(names: Vec<Name>, elsewhere: Vec<Place>, unit: Option<Unit>) -> Self {
        Self {
            names: names.into_boxed_slice(),
            elsewhere,
            unit: unit.map(Arc::new),
        }
    }

    /// As [`Cgroup::is_none`].
    pub(crate) fn is_none(&self) -> bool {
        self.names.is_empty()
    }

    /// The groups, to do something to them.
    pub(crate) fn wake(&self) -> Cgroup {
        Cgroup {
            members: self.names.iter().cloned().map(Member::new).collect(),
            elsewhere: self.elsewhere.clone(),
            unit: self.unit.clone(),
        }
    }
}

impl Cgroup {
    /// Where the groups are, for the state file.
    pub fn location(&self) -> Location {
        let places = self.members.iter().map(|member| member.name.place());
        Location {
            places: places.chain(self.elsewhere.iter().cloned()).collect(),
            unit: self.unit.as_deref().cloned(),
        }
    }

    /// Lets go of the descriptors.
    pub(crate) fn rest(self) -> Names {
        Names {
            names: self.members.into_iter().map(|member| member.name).collect(),
            elsewhere: self.elsewhere,
            unit: self.unit,
        }
    }
}
