#[cfg(any(feature = "systemd", test))]
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{AtFlags, Uid, chownat};
use rustix::io::Errno;

use super::super::group::failed;
use super::Cgroup;
use crate::Result;

/// The files that the kernel means to be handed on (cgroup-v2.rst, "Model of Delegation"), and what they were before it told.
const LIST: &str = "/sys/kernel/cgroup/delegate";
const USUAL: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl Cgroup {
    /// Hands the v2 group to a user, who may make groups in it and move processes between them. The limits stay out of reach.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) and [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn delegate(&self, user: u32) -> Result<()> {
        let Some(group) = self.v2_with("cgroup.procs")? else {
            return Ok(());
        };
        let owner = Some(Uid::from_raw(user));
        let told = |file: &str, errno| failed(&group.path.join(file), format!("give it to user {user}"), errno);
        let directory = group.dir().map_err(|errno| told("", errno))?;
        chownat(directory, "", owner, None, AtFlags::EMPTY_PATH).map_err(|errno| told("", errno))?;
        let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| USUAL.join("\n"));
        for file in list.lines().filter(|file| !file.is_empty() && !file.contains('/')) {
            match chownat(directory, file, owner, None, AtFlags::SYMLINK_NOFOLLOW) {
                // Kernels list files that not every group has.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(told(file, errno)),
            }
        }
        Ok(())
    }
}

/// Whom the v2 group of a container belongs to: the user of its process, where it has a user namespace, sees itself as the root of the tree, and may
/// write there.
#[cfg(any(feature = "systemd", test))]
pub(crate) fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let mut namespaces = linux.namespaces().iter().flatten();
    namespaces.find(|n| n.typ() == LinuxNamespaceType::Cgroup && n.path().is_none())?;
    let is_writable = |options: &Option<Vec<String>>| !options.iter().flatten().any(|option| option == "ro");
    let mut mounts = spec.mounts().iter().flatten();
    mounts.find(|mount| {
        let typ = mount.typ().as_deref();
        matches!(typ, Some("cgroup" | "cgroup2")) && is_writable(mount.options())
    })?;
    let inside = spec.process().as_ref().map_or(0, |process| process.user().uid());
    linux.uid_mappings().iter().flatten().find_map(|map| {
        let offset = inside.checked_sub(map.container_id())?;
        (offset < map.size())
            .then(|| map.host_id().checked_add(offset))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_is_handed_on_only_to_who_may_write_there_in_a_namespace() {
        let of = |namespaces: &[&str], options: &[&str], user: u32| {
            let namespaces: Vec<_> = namespaces.iter().map(|n| json!({ "type": n })).collect();
            let spec = json!({ "ociVersion": "1.2.0", "process": { "cwd": "/", "user": { "uid": user, "gid": 0 } },
                "mounts": [{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }],
                "linux": { "namespaces": namespaces, "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }] } });
            owner(&serde_json::from_value(spec).expect("a spec"))
        };
        assert_eq!(of(&["user", "cgroup"], &["rw"], 3), Some(1003));
        assert_eq!(of(&["user", "cgroup"], &["nosuid", "ro"], 3), None);
        assert_eq!(of(&["user"], &["rw"], 3), None);
        assert_eq!(of(&["user", "cgroup"], &[], 10), None, "it has no number outside");
    }
}
