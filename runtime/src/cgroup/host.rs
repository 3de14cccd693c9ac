use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use longshore_linux::read_procfs;

use crate::{Error, Result};

/// Which versions of cgroups a machine has mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// No hierarchy at all.
    None,
    /// v2 alone.
    Unified,
    /// v1 alone.
    Legacy,
    /// v1 with its controllers, and a v2 tree besides.
    Hybrid,
}

/// What a hierarchy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V2,
    /// With its controllers and perhaps a name (`name=systemd` has no controller).
    V1 {
        controllers: BTreeSet<String>,
        name: Option<String>,
    },
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) kind: Kind,
    pub(super) mount_point: PathBuf,
    /// The group that is the root of what is mounted.
    root: PathBuf,
    /// The group of this process, relative to the mount point; `None` if it is outside of what is mounted.
    pub(super) own: Option<PathBuf>,
}

impl Hierarchy {
    pub(super) fn is_v2(&self) -> bool {
        self.kind == Kind::V2
    }

    /// The group of another process, relative to the mount point, by its `/proc/<pid>/cgroup`.
    pub(super) fn group_in(&self, cgroup: &[u8]) -> Option<PathBuf> {
        let of = |m: &Membership| match &self.kind {
            Kind::V2 => m.is_v2(),
            Kind::V1 { controllers, name } => m.controllers == *controllers && m.name == *name,
        };
        let member = lines(cgroup).filter_map(membership).find(of)?;
        relative(&member.path, &self.root)
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        matches!(&self.kind, Kind::V1 { controllers, .. } if controllers.contains(controller))
    }
}

/// The machine's hierarchies, as this process sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub(super) hierarchies: Vec<Hierarchy>,
    /// The controllers of the v2 tree.
    pub(super) v2_controllers: BTreeSet<String>,
}

impl Host {
    /// Reads `/proc/self/mountinfo`, `/proc/self/cgroup` and the controllers of the v2 tree.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if `/proc` can't be read.
    pub fn detect() -> Result<Self> {
        let read = |path: &str| {
            read_procfs(path).map_err(|errno| Error::Io {
                action: format!("read {path}"),
                source: errno.into(),
            })
        };
        let mut host = Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, "");
        if let Some(v2) = host.hierarchies.iter().find(|h| h.is_v2()) {
            // Unreadable is the same as none: a limit that needs one then says so.
            let text = std::fs::read_to_string(v2.mount_point.join("cgroup.controllers")).unwrap_or_default();
            host.v2_controllers = words(&text);
        }
        Ok(host)
    }

    /// The same from text: `mountinfo` and `cgroup` as proc(5) has them, `controllers` as in `cgroup.controllers`.
    /// Lines that are not understood are skipped.
    pub fn parse(mountinfo: &[u8], cgroup: &[u8], controllers: &str) -> Self {
        let memberships: Vec<_> = lines(cgroup).filter_map(membership).collect();
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in lines(mountinfo).filter_map(mount) {
            let Some(member) = memberships.iter().find(|m| m.is_of(&mount)) else {
                continue;
            };
            let kind = if mount.fs_type == b"cgroup2" {
                Kind::V2
            } else {
                Kind::V1 {
                    controllers: member.controllers.clone(),
                    name: member.name.clone(),
                }
            };
            // What is mounted later on the same place hides what was there.
            hierarchies.retain(|h| h.mount_point != mount.point);
            if hierarchies.iter().all(|h| h.kind != kind) {
                let own = relative(&member.path, &mount.root);
                hierarchies.push(Hierarchy {
                    kind,
                    mount_point: mount.point,
                    root: mount.root,
                    own,
                });
            }
        }
        Self {
            hierarchies,
            v2_controllers: words(controllers),
        }
    }

    /// The hierarchies of v1: where each is mounted, the group of this process in it, and the options by which it can be mounted again.
    pub(crate) fn v1_hierarchies(&self) -> impl Iterator<Item = (&Path, Option<&Path>, String)> {
        self.hierarchies.iter().filter_map(|h| match &h.kind {
            Kind::V2 => None,
            Kind::V1 { controllers, name } => {
                let named = name.as_ref().map(|name| format!("name={name}"));
                let words: Vec<_> = controllers.iter().cloned().chain(named).collect();
                Some((h.mount_point.as_path(), h.own.as_deref(), words.join(",")))
            }
        })
    }

    /// Where the v2 tree is mounted, and the group of this process in it.
    pub(crate) fn v2(&self) -> Option<(&Path, Option<&Path>)> {
        let v2 = self.hierarchies.iter().find(|h| h.is_v2())?;
        Some((&v2.mount_point, v2.own.as_deref()))
    }

    /// Which versions there are.
    pub fn mode(&self) -> Mode {
        let v2 = self.hierarchies.iter().any(Hierarchy::is_v2);
        let v1 = self
            .hierarchies
            .iter()
            .any(|h| matches!(&h.kind, Kind::V1 { controllers, .. } if !controllers.is_empty()));
        match (v1, v2) {
            (false, false) => Mode::None,
            (false, true) => Mode::Unified,
            (true, false) => Mode::Legacy,
            (true, true) => Mode::Hybrid,
        }
    }

    /// Where a controller is, if it is anywhere.
    pub(super) fn home(&self, controller: &str) -> Option<Home> {
        if self.hierarchies.iter().any(|h| h.has(controller)) {
            return Some(Home::V1);
        }
        // `devices` and `freezer` are part of v2 itself: a program and a file.
        let built_in = matches!(controller, "devices" | "freezer") && self.mode() == Mode::Unified;
        (built_in || self.v2_controllers.contains(controller)).then_some(Home::V2)
    }
}

/// The version that a controller is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    V1,
    V2,
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty())
}

/// A line of `/proc/self/cgroup`: `4:memory:/some/group`.
#[derive(Debug)]
struct Membership {
    controllers: BTreeSet<String>,
    name: Option<String>,
    path: PathBuf,
}

impl Membership {
    fn is_v2(&self) -> bool {
        self.controllers.is_empty() && self.name.is_none()
    }

    fn is_of(&self, mount: &Mounted<'_>) -> bool {
        if self.is_v2() {
            return mount.fs_type == b"cgroup2";
        }
        let options: Vec<&[u8]> = mount.options.split(|b| *b == b',').collect();
        let has = |option: &str| options.contains(&option.as_bytes());
        mount.fs_type == b"cgroup"
            && self.controllers.iter().all(|c| has(c))
            && self.name.as_ref().is_none_or(|n| has(&format!("name={n}")))
    }
}

fn membership(line: &[u8]) -> Option<Membership> {
    let mut parts = line.splitn(3, |b| *b == b':');
    let id = std::str::from_utf8(parts.next()?).ok()?.parse::<u32>().ok()?;
    let list = std::str::from_utf8(parts.next()?).ok()?;
    let path = PathBuf::from(OsString::from_vec(parts.next()?.to_vec()));
    let mut member = Membership {
        controllers: BTreeSet::new(),
        name: None,
        path,
    };
    for item in list.split(',').filter(|i| !i.is_empty()) {
        match item.strip_prefix("name=") {
            Some(name) => member.name = Some(name.to_owned()),
            None => drop(member.controllers.insert(item.to_owned())),
        }
    }
    // Number 0 with an empty list is v2; nothing else may have an empty list.
    (member.path.is_absolute() && (member.is_v2() == (id == 0))).then_some(member)
}

/// A cgroup line of mountinfo.
#[derive(Debug)]
struct Mounted<'a> {
    root: PathBuf,
    point: PathBuf,
    fs_type: &'a [u8],
    options: &'a [u8],
}

fn mount(line: &[u8]) -> Option<Mounted<'_>> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().skip(6).position(|f| *f == b"-")? + 6;
    let (fs_type, options) = (*fields.get(dash + 1)?, *fields.get(dash + 3)?);
    if fs_type != b"cgroup" && fs_type != b"cgroup2" {
        return None;
    }
    Some(Mounted {
        root: unescape(fields[3]),
        point: unescape(fields[4]),
        fs_type,
        options,
    })
}

/// Undoes mountinfo's `\040` for bytes that would split a line.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The group `path` as seen from a mount whose root is the group `root`; `None` if it is not beneath it.
fn relative(path: &Path, root: &Path) -> Option<PathBuf> {
    let plain = |p: &Path| !p.components().any(|c| matches!(c, Component::ParentDir));
    // Through a cgroup namespace or a bind mount of its parent, the kernel shows `/..`.
    (plain(path) && plain(root))
        .then(|| path.strip_prefix(root).ok().map(Path::to_path_buf))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 master:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
";
    const OWN: &str = "9:name=systemd:/a:b\n4:memory:/me\n1:cpu,cpuacct:/\n0::/v2\n";

    fn own<'a>(host: &'a Host, point: &str) -> Option<&'a Path> {
        host.hierarchies
            .iter()
            .find(|h| h.mount_point == Path::new(point))?
            .own
            .as_deref()
    }

    #[test]
    fn a_hybrid_machine_is_understood() {
        let host = Host::parse(HYBRID.as_bytes(), OWN.as_bytes(), "hugetlb\n");
        assert_eq!(host.mode(), Mode::Hybrid);
        assert_eq!(host.hierarchies.len(), 4);
        assert_eq!(host.home("memory"), Some(Home::V1));
        assert_eq!(host.home("cpuacct"), Some(Home::V1));
        assert_eq!(host.home("hugetlb"), Some(Home::V2));
        assert_eq!(host.home("pids"), None);
        assert_eq!(host.home("devices"), None, "a v1 machine without the controller");
        assert_eq!(own(&host, "/sys/fs/cgroup/memory"), Some(Path::new("me")));
        assert_eq!(own(&host, "/sys/fs/cgroup/systemd"), Some(Path::new("a:b")));
        assert_eq!(own(&host, "/sys/fs/cgroup/uni fied"), Some(Path::new("v2")));
    }

    #[test]
    fn v2_alone_has_devices_and_freezer_built_in() {
        let host = Host::parse(
            b"41 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw,nsdelegate",
            b"0::/",
            "cpu io memory pids",
        );
        assert_eq!(host.mode(), Mode::Unified);
        assert_eq!(host.home("devices"), Some(Home::V2));
        assert_eq!(host.home("freezer"), Some(Home::V2));
        assert_eq!(host.home("io"), Some(Home::V2));
        assert_eq!(host.home("cpuset"), None);
    }

    #[test]
    fn what_is_outside_of_the_mount_has_no_own_group() {
        let mounts = b"1 1 0:1 /docker/x /sys/fs/cgroup rw - cgroup2 none rw";
        assert_eq!(
            own(&Host::parse(mounts, b"0::/docker/x/y", ""), "/sys/fs/cgroup"),
            Some(Path::new("y"))
        );
        assert_eq!(own(&Host::parse(mounts, b"0::/docker/xy", ""), "/sys/fs/cgroup"), None);
        assert_eq!(own(&Host::parse(mounts, b"0::/../other", ""), "/sys/fs/cgroup"), None);
        let host = Host::parse(mounts, b"0::/docker/x", "");
        let another = |cgroup: &[u8]| host.hierarchies[0].group_in(cgroup);
        assert_eq!(another(b"4:memory:/m\n0::/docker/x/a/b\n"), Some("a/b".into()));
        assert_eq!(another(b"0::/docker/y\n"), None);
        assert_eq!(another(b"4:memory:/docker/x\n"), None);
    }

    #[test]
    fn odd_input_is_skipped() {
        let odd: &[&[u8]] = &[
            b"",
            b"\n\n",
            b"garbage",
            b"1 1 0:1 / /x rw - cgroup2",
            b"1 1 0:1 / /x rw - cgroup none",
            b"1 1 0:1 / /x rw - cgroup none rw,memoryx",
            b"1 1 0:1 / /x rw no dash here cgroup none rw,memory",
            b"- - - - - - - - - - - -",
            b"1 1 0:1 / /\xff\\04 rw - cgroup2x none rw",
            "1 1 0:1 / / rw - tmpfs cgroup2 - cgroup2".as_bytes(),
        ];
        for mountinfo in odd {
            let host = Host::parse(mountinfo, OWN.as_bytes(), "");
            assert_eq!(host.mode(), Mode::None, "{:?}", String::from_utf8_lossy(mountinfo));
        }
        for cgroup in ["", "::", "x::/", "0:memory:/", "3::/", "0::relative", "0", "4:memory"] {
            assert_eq!(
                Host::parse(HYBRID.as_bytes(), cgroup.as_bytes(), "").mode(),
                Mode::None,
                "{cgroup}"
            );
        }
    }

    #[test]
    fn the_later_of_two_mounts_on_a_place_counts_and_copies_do_not() {
        let mounts = b"1 1 0:1 / /c rw - cgroup none rw,memory\n2 1 0:2 / /c rw - cgroup2 none rw\n3 1 0:2 / /d rw - cgroup2 none rw";
        let host = Host::parse(mounts, b"4:memory:/\n0::/", "");
        assert_eq!(host.mode(), Mode::Unified);
        assert_eq!(host.hierarchies.len(), 1);
    }

    #[test]
    fn this_machine_is_understood() {
        let host = Host::detect().expect("/proc is readable");
        for hierarchy in &host.hierarchies {
            assert!(hierarchy.mount_point.is_dir(), "{hierarchy:?}");
        }
    }
}
