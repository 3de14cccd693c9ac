use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What exists on the machine outside a test's own folders: mounts of this namespace, cgroups, processes in those cgroups.
/// Taken before and compared after, it shows what a test left behind.
///
/// Cgroups and processes are told apart by a marker in the group's path, so that tests which run at the same time are not taken for one another's leftovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    processes: BTreeSet<String>,
}

impl Leftovers {
    /// What there is now, of cgroups those whose path contains `marker`.
    pub fn now(marker: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(str::to_owned)
            .collect();
        let mut cgroups = BTreeSet::new();
        find_groups(Path::new("/sys/fs/cgroup"), marker, 0, &mut cgroups);
        Self {
            mounts,
            cgroups,
            processes: find_processes(marker),
        }
    }

    /// What is there now and was not there then, one line each; empty is good.
    pub fn since(&self, marker: &str) -> Vec<String> {
        let now = Self::now(marker);
        let mounts = now.mounts.difference(&self.mounts).map(|path| format!("mount {path}"));
        let cgroups = now
            .cgroups
            .difference(&self.cgroups)
            .map(|path| format!("cgroup {}", path.display()));
        let processes = now
            .processes
            .difference(&self.processes)
            .map(|process| format!("process {process}"));
        mounts.chain(cgroups).chain(processes).collect()
    }
}

fn find_groups(folder: &Path, marker: &str, depth: u32, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        let path = entry.path();
        if path.to_string_lossy().contains(marker) {
            found.insert(path.clone());
        }
        if depth < 6 {
            find_groups(&path, marker, depth + 1, found);
        }
    }
}

/// Processes in a cgroup whose path contains the marker, as `pid name`.
fn find_processes(marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        // What has ended and only waits for its parent to notice is not left behind by us.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let ended = stat
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        if groups.contains(marker) && !ended {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.insert(format!("{} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_and_its_process_are_told() {
        let group = PathBuf::from(format!("/sys/fs/cgroup/pids/testing-{}", std::process::id()));
        if fs::create_dir(&group).is_err() {
            return crate::skip("needs root and the pids hierarchy of cgroup v1");
        }
        let marker = group.file_name().expect("it has a name").to_string_lossy().into_owned();
        let empty = Leftovers::now("no-such-marker");
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep");
        fs::write(group.join("cgroup.procs"), child.id().to_string()).expect("moved");
        let left = empty.since(&marker);
        child.kill().expect("kill");
        child.wait().expect("wait");
        fs::remove_dir(&group).expect("removed");
        assert!(left.contains(&format!("cgroup {}", group.display())), "{left:?}");
        assert!(left.contains(&format!("process {} sleep", child.id())), "{left:?}");
        assert_eq!(empty.since(&marker), [] as [String; 0], "and no more when it is gone");
    }
}
