use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What exists on the machine outside a test's own folders: mounts of this namespace, cgroups, children of this process.
/// Taken before and compared after, it shows what a test left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    children: BTreeSet<String>,
}

impl Leftovers {
    /// What there is now. Cgroups are looked for by `marker`: those whose path contains it.
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
            children: children(),
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
        let children = now
            .children
            .difference(&self.children)
            .map(|child| format!("process {child}"));
        mounts.chain(cgroups).chain(children).collect()
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

/// Living or unreaped processes whose parent is this one, as `pid name`.
fn children() -> BTreeSet<String> {
    let own = std::process::id().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        if tail.split(' ').nth(1) == Some(own.as_str()) {
            found.insert(head.replacen('(', "", 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_not_there_is_told() {
        let before = Leftovers::now("no-such-marker");
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep");
        let left = before.since("no-such-marker");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(
            left.iter()
                .any(|line| line.starts_with("process ") && line.ends_with("sleep")),
            "{left:?}"
        );
    }
}
