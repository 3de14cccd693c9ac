//! The group of a container in the resctrl filesystem (runtime spec, "IntelRdt"): which part of the processor's caches and of the memory's bandwidth it
//! gets, and how much it uses.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIntelRdt, Spec};
use serde::{Deserialize, Serialize};

use crate::{ContainerId, Error, Result};

const FIELD: &str = "linux.intelRdt";
/// What the kernel has in the filesystem's root besides groups.
const TAKEN: [&str; 3] = ["info", "mon_data", "mon_groups"];

/// Where the filesystem is mounted, if it is.
pub(crate) fn find_mount() -> Option<PathBuf> {
    const RDTGROUP_SUPER_MAGIC: u64 = 0x0765_5821;
    const USUAL: &str = "/sys/fs/resctrl";
    // A kernel that has it makes this directory; who mounts it may do so elsewhere.
    let there = rustix::fs::statfs(USUAL).ok()?;
    if there.f_type as u64 == RDTGROUP_SUPER_MAGIC {
        return Some(USUAL.into());
    }
    let mounts = longshore_linux::read_procfs("/proc/self/mountinfo").ok()?;
    mounted(&String::from_utf8_lossy(&mounts))
}

fn mounted(mountinfo: &str) -> Option<PathBuf> {
    let mut lines = mountinfo.lines();
    lines.find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        (filesystem.split(' ').next() == Some("resctrl")).then(|| point.into())
    })
}

/// Checks what the spec says, for a machine that has the filesystem there, if it has it.
pub(crate) fn check(wanted: &LinuxIntelRdt, mount: Option<&Path>) -> Result<()> {
    let invalid = |name: &str, reason: &str| {
        Err(Error::InvalidSpec {
            field: format!("{FIELD}.{name}"),
            reason: reason.to_owned(),
        })
    };
    if mount.is_none() {
        return Err(Error::Unsupported {
            field: FIELD.into(),
            reason: "no resctrl filesystem is mounted on this machine (mount -t resctrl resctrl /sys/fs/resctrl); leave it out".into(),
        });
    }
    if clos(wanted).is_some_and(|name| name != "/" && !is_name(name)) {
        return invalid(
            "closID",
            "it is neither '/' nor the name of a directory that may be a group",
        );
    }
    let line = |text: &str| !text.contains('\n');
    if wanted.l3_cache_schema().as_deref().is_some_and(|text| !line(text)) {
        return invalid("l3CacheSchema", "it is more than one line");
    }
    let bandwidth = wanted.mem_bw_schema().as_deref().filter(|text| !text.is_empty());
    if bandwidth.is_some_and(|text| !line(text) || !text.starts_with("MB:")) {
        return invalid("memBwSchema", "it is not one line that starts with MB:");
    }
    match wanted.schemata().iter().flatten().position(|text| !line(text)) {
        Some(i) => invalid(&format!("schemata[{i}]"), "it is more than one line"),
        None => Ok(()),
    }
}

fn clos(wanted: &LinuxIntelRdt) -> Option<&str> {
    wanted.clos_id().as_deref().filter(|name| !name.is_empty())
}

fn is_name(name: &str) -> bool {
    !name.contains(['/', '\0', '\n']) && ![".", ".."].contains(&name) && !TAKEN.contains(&name)
}

/// The lines of the spec, in the order in which they are written.
fn lines(wanted: &LinuxIntelRdt) -> Vec<&str> {
    let single = [wanted.l3_cache_schema(), wanted.mem_bw_schema()];
    let single = single.into_iter().filter_map(|line| line.as_deref());
    let all = single.chain(wanted.schemata().iter().flatten().map(String::as_str));
    all.filter(|line| !line.is_empty()).collect()
}

/// What happens to the group at the container's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Fate {
    /// It is the container's own.
    Removed,
    /// It is others' as well.
    Left,
}

/// A container's group. It is written down before it is made, so that whoever cleans up knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    mount: PathBuf,
    path: PathBuf,
    /// Where the container's own use is counted.
    monitor: Option<PathBuf>,
    fate: Fate,
}

impl Group {
    /// The group that a container is to be in; none if its spec says nothing of it. Makes nothing.
    pub(crate) fn of(spec: &Spec, id: &ContainerId, mount: Option<&Path>) -> Result<Option<Self>> {
        let wanted = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
        let Some((wanted, mount)) = wanted.zip(mount) else {
            return Ok(None);
        };
        let path = match clos(wanted) {
            Some("/") => mount.to_owned(),
            Some(name) => mount.join(name),
            None if is_name(id.as_str()) => mount.join(id.as_str()),
            None => {
                return Err(Error::InvalidSpec {
                    field: format!("{FIELD}.closID"),
                    reason: format!("it is missing, and '{id}' can't be the name of a group"),
                });
            }
        };
        let own = clos(wanted).is_none() && !path.exists();
        let monitor = wanted.enable_monitoring().unwrap_or(false);
        Ok(Some(Self {
            monitor: monitor.then(|| path.join("mon_groups").join(id.as_str())),
            mount: mount.to_owned(),
            path,
            fate: if own { Fate::Removed } else { Fate::Left },
        }))
    }

    /// Makes it, as far as it is not there, with what the spec says of it.
    pub(crate) fn make(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        let lines = lines(wanted);
        let there = self.path.is_dir();
        let named = clos(wanted).is_some();
        if !there {
            if named && lines.is_empty() {
                return Err(self.failed("closID", "find the group")(io::ErrorKind::NotFound.into()));
            }
            fs::create_dir(&self.path).map_err(self.failed("closID", "make the group"))?;
        }
        if !lines.is_empty() {
            let path = self.path.join("schemata");
            if there && named {
                let present =
                    fs::read_to_string(&path).map_err(self.failed("closID", "read the schemata of the group"))?;
                if let Some(line) = lines.iter().find(|line| !has(&present, line)) {
                    return Err(Error::InvalidSpec {
                        field: format!("{FIELD}.closID"),
                        reason: format!(
                            "{} is there, and does not have '{line}'; leave the schemata out, or change the group",
                            self.path.display()
                        ),
                    });
                }
            } else {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                let action = format!("write {:?} to the schemata of the group", text.trim_end());
                fs::write(&path, text).map_err(self.failed("schemata", &action))?;
            }
        }
        match &self.monitor {
            Some(path) => fs::create_dir(path)
                .map_err(self.failed("enableMonitoring", "make the monitoring group of the container in")),
            None => Ok(()),
        }
    }

    /// Puts a process in; what it starts from then on is in it too.
    pub(crate) fn join(&self, pid: i32) -> Result<()> {
        for group in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            let action = format!("put process {pid} into the group");
            fs::write(group.join("tasks"), pid.to_string()).map_err(self.failed("closID", &action))?;
        }
        Ok(())
    }

    /// Removes what is the container's own.
    pub(crate) fn remove(&self) -> Result<()> {
        let own = match self.fate {
            // What is below goes with it.
            Fate::Removed => Some(&self.path),
            Fate::Left => self.monitor.as_ref(),
        };
        match own.map(fs::remove_dir) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("closID", "remove the container's group below")(error))
            }
            _ => Ok(()),
        }
    }

    /// With what the kernel says of it besides the number.
    fn failed(&self, name: &str, action: &str) -> impl FnOnce(io::Error) -> Error {
        let said = fs::read_to_string(self.mount.join("info/last_cmd_status")).unwrap_or_default();
        let said = match said.trim() {
            "" | "ok" => String::new(),
            said => format!(" (the kernel says: {said})"),
        };
        let (field, step) = (
            format!("{FIELD}.{name}"),
            format!("{action} {}{said}", self.path.display()),
        );
        |source| Error::Step { field, step, source }
    }
}

/// Whether the schemata of a group have all that a line says. Cache masks may have leading zeroes and come in any order.
fn has(present: &str, line: &str) -> bool {
    let parts = |line: &str| {
        let (resource, values) = line.split_once(':')?;
        let value = |value: &str| {
            let (domain, value) = value.split_once('=')?;
            let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
            Some((domain.trim().trim_start_matches('0').to_owned(), value))
        };
        let values: Option<Vec<_>> = values.split(';').map(value).collect();
        Some((resource.trim().to_owned(), values?))
    };
    let Some((resource, wanted)) = parts(line) else {
        return false;
    };
    let mut lines = present.lines().filter_map(parts);
    lines.any(|(name, values)| name == resource && wanted.iter().all(|value| values.contains(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A directory that looks like the filesystem, with a group `made` that somebody else has made.
    fn stand_in() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for group in ["", "made"] {
            fs::create_dir_all(dir.path().join(group).join("mon_groups")).expect("a directory");
            fs::write(
                dir.path().join(group).join("schemata"),
                "    L3:0=0f0;1=fff\n    MB:0= 20;1=100\n",
            )
            .expect("a file");
            fs::write(dir.path().join(group).join("tasks"), "").expect("a file");
        }
        fs::create_dir(dir.path().join("info")).expect("a directory");
        fs::write(dir.path().join("info/last_cmd_status"), "ok\n").expect("a file");
        dir
    }

    fn spec(rdt: &Value) -> (Spec, LinuxIntelRdt) {
        let spec = json!({ "ociVersion": "1.3.0", "root": { "path": "r" }, "linux": { "intelRdt": rdt } });
        let spec: Spec = serde_json::from_value(spec).expect("a runtime spec");
        let rdt = spec
            .linux()
            .as_ref()
            .and_then(|l| l.intel_rdt().clone())
            .expect("it is in there");
        (spec, rdt)
    }

    fn group(dir: &Path, rdt: &Value) -> (Group, LinuxIntelRdt) {
        let (spec, rdt) = spec(rdt);
        let id = ContainerId::new("box").expect("an id");
        let group = Group::of(&spec, &id, Some(dir)).expect("a group");
        (group.expect("the spec wants one"), rdt)
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[test]
    fn a_container_without_a_class_gets_one_of_its_own() {
        let dir = stand_in();
        let rdt = json!({ "schemata": ["L2:0=f"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f" });
        let (group, rdt) = group(dir.path(), &rdt);
        group.make(&rdt).expect("made");
        group.join(42).expect("joined");
        let own = dir.path().join("box");
        assert_eq!(read(own.join("schemata")), "L3:0=f\nMB:0=20\nL2:0=f\n");
        assert_eq!(read(own.join("tasks")), "42");
        for file in ["schemata", "tasks"] {
            // The kernel's files go with their directory.
            fs::remove_file(own.join(file)).expect("it was written");
        }
        group.remove().expect("removed");
        assert!(!own.exists());
        group.remove().expect("also when it is gone");
    }

    #[test]
    fn a_class_that_is_there_is_joined_if_it_is_what_was_asked_for() {
        let dir = stand_in();
        let made = dir.path().join("made");
        let before = read(made.join("schemata"));
        let fitting = json!({ "closID": "made", "l3CacheSchema": "L3:1=FFF;0=f0", "memBwSchema": "MB:0=20", "enableMonitoring": true });
        for rdt in [json!({ "closID": "made", "enableMonitoring": true }), fitting] {
            let (group, rdt) = group(dir.path(), &rdt);
            group.make(&rdt).expect("it fits");
            group.join(7).expect("joined");
            assert_eq!(
                (read(made.join("tasks")), read(made.join("schemata"))),
                ("7".into(), before.clone())
            );
            assert_eq!(read(made.join("mon_groups/box/tasks")), "7");
            fs::remove_file(made.join("mon_groups/box/tasks")).expect("it was written");
            group.remove().expect("removed");
            assert!(made.is_dir() && !made.join("mon_groups/box").exists());
        }
        let (group, rdt) = group(dir.path(), &json!({ "closID": "made", "memBwSchema": "MB:0=30" }));
        let error = group.make(&rdt).expect_err("it does not fit");
        assert!(
            error.to_string().starts_with("linux.intelRdt.closID: ") && error.to_string().contains("MB:0=30"),
            "{error}"
        );
    }

    #[test]
    fn a_class_is_made_only_with_schemata() {
        let dir = stand_in();
        let (nothing, rdt) = group(dir.path(), &json!({ "closID": "other" }));
        assert!(nothing.make(&rdt).is_err(), "it must be there");
        let (other, rdt) = group(dir.path(), &json!({ "closID": "other", "schemata": ["L3:0=f"] }));
        other.make(&rdt).expect("made");
        other.remove().expect("nothing to do");
        assert!(dir.path().join("other").is_dir(), "who names a class takes care of it");
        let (default, rdt) = group(dir.path(), &json!({ "closID": "/" }));
        default.make(&rdt).expect("it is there");
        default.join(3).expect("joined");
        assert_eq!(read(dir.path().join("tasks")), "3");
        default.remove().expect("nothing to do");
    }

    #[test]
    fn a_failure_has_the_kernels_words() {
        let dir = stand_in();
        fs::write(dir.path().join("info/last_cmd_status"), "no bits in mask\n").expect("a file");
        let (group, rdt) = group(dir.path(), &json!({ "closID": "none" }));
        let error = group.make(&rdt).expect_err("it is not there").to_string();
        assert!(error.ends_with("(the kernel says: no bits in mask)"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let here = Some(Path::new("/x"));
        assert!(matches!(check(&spec(&json!({})).1, None), Err(Error::Unsupported { field, .. }) if field == FIELD));
        check(&spec(&json!({})).1, here).expect("nothing is wrong");
        for (rdt, expected) in [
            (json!({ "closID": ".." }), "closID"),
            (json!({ "closID": "/a" }), "closID"),
            (json!({ "closID": "info" }), "closID"),
            (json!({ "l3CacheSchema": "L3:0=f\nx" }), "l3CacheSchema"),
            (json!({ "memBwSchema": "L3:0=f" }), "memBwSchema"),
            (json!({ "schemata": ["L3:0=f", "a\nb"] }), "schemata[1]"),
        ] {
            let (_, rdt) = spec(&rdt);
            match check(&rdt, here) {
                Err(Error::InvalidSpec { field, .. }) => assert_eq!(field, format!("{FIELD}.{expected}")),
                other => panic!("{expected}: {other:?}"),
            }
        }
        let (spec, _) = spec(&json!({}));
        let id = ContainerId::new("mon_groups").expect("an id");
        assert!(Group::of(&spec, &id, here).is_err());
    }

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let table =
            "22 27 0:21 / /proc rw - proc proc rw\n30 22 0:40 / /mnt/rdt rw,relatime shared:3 - resctrl resctrl rw\n";
        assert_eq!(mounted(table), Some("/mnt/rdt".into()));
        assert_eq!(mounted("22 27 0:21 / /resctrl rw - tmpfs resctrl rw\n"), None);
    }
}
