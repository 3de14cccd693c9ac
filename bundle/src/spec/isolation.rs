//! Namespaces, hostname and sysctls.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};

use super::mapping::IdMappings;
use super::{SpecBuilder, empty_linux};
use crate::{Error, Result};

/// What the kernel takes for a hostname, in bytes (sethostname(2)).
const MAX_HOSTNAME: usize = 64;

/// Which namespace of a kind a container lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Namespace {
    /// One of its own. A network namespace of its own has nothing but a loopback device that is down.
    #[default]
    New,
    /// The engine's.
    Host,
    /// The one behind a file, such as `/proc/PID/ns/net` or a bind mount of one.
    Path(PathBuf),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    network: Namespace,
    pid: Namespace,
    ipc: Namespace,
    uts: Namespace,
    cgroup: Namespace,
    mappings: Option<IdMappings>,
    hostname: Option<String>,
    sysctls: BTreeMap<String, String>,
}

impl SpecBuilder {
    /// The network namespace. Default: a new one.
    pub fn network(mut self, namespace: Namespace) -> Self {
        self.isolation.network = namespace;
        self
    }

    /// The PID namespace. Default: a new one.
    pub fn pid(mut self, namespace: Namespace) -> Self {
        self.isolation.pid = namespace;
        self
    }

    /// The IPC namespace. Default: a new one.
    pub fn ipc(mut self, namespace: Namespace) -> Self {
        self.isolation.ipc = namespace;
        self
    }

    /// The UTS namespace. Default: a new one. With another, the hostname is not the container's to set.
    pub fn uts(mut self, namespace: Namespace) -> Self {
        self.isolation.uts = namespace;
        self
    }

    /// The cgroup namespace. Default: a new one.
    pub fn cgroup_namespace(mut self, namespace: Namespace) -> Self {
        self.isolation.cgroup = namespace;
        self
    }

    /// Puts the container into a new user namespace with these mappings, and leaves out what does not work there:
    ///
    /// - Supplementary groups without a mapping are dropped; all are where there is a single mapping, because
    ///   setgroups(2) is denied there. A user without one is an error.
    /// - Mount options `uid=` and `gid=` without a mapping are dropped.
    /// - `/sys` is the host's, bound and read-only, unless the container's network namespace is new: a sysfs belongs to
    ///   that.
    pub fn user_namespace(mut self, mappings: IdMappings) -> Self {
        self.isolation.mappings = Some(mappings);
        self
    }

    /// The hostname, and the variable `HOSTNAME`. Default: none is set.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.isolation.hostname = Some(hostname.into());
        self
    }

    /// A kernel parameter of the container's own namespaces (`net.ipv4.ip_forward`, `kernel.shmmax`, ...).
    ///
    /// Set by default with a new network namespace, as in Docker: ports below 1024 need no privilege, and every group
    /// may send pings.
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.isolation.sysctls.insert(name.into(), value.into());
        self
    }
}

impl Options {
    pub(super) fn mappings(&self) -> Option<&IdMappings> {
        self.mappings.as_ref()
    }

    pub(super) fn map(&mut self, mappings: IdMappings) {
        self.mappings = Some(mappings);
    }

    pub(super) fn linux(&self) -> Result<Linux> {
        let mut linux = empty_linux();
        linux.set_namespaces(Some(self.namespaces()?));
        let sysctls = self.sysctls()?;
        linux.set_sysctl((!sysctls.is_empty()).then_some(sysctls));
        if let Some(mappings) = &self.mappings {
            let (uids, gids) = mappings.for_spec()?;
            linux.set_uid_mappings(Some(uids));
            linux.set_gid_mappings(Some(gids));
        }
        Ok(linux)
    }

    /// The hostname to set, which needs a UTS namespace of the container's own.
    pub(super) fn hostname(&self) -> Result<Option<String>> {
        let Some(hostname) = self.hostname.as_ref().filter(|_| self.uts == Namespace::New) else {
            return Ok(None);
        };
        let printable = hostname.bytes().all(|byte| byte.is_ascii_graphic());
        if hostname.is_empty() || hostname.len() > MAX_HOSTNAME || !printable {
            let reason = format!("it has 1 to {MAX_HOSTNAME} characters, no spaces and no controls");
            return Err(Error::option("hostname", hostname, reason));
        }
        Ok(Some(hostname.clone()))
    }

    fn namespaces(&self) -> Result<Vec<LinuxNamespace>> {
        let kinds = [
            (LinuxNamespaceType::Pid, &self.pid),
            (LinuxNamespaceType::Network, &self.network),
            (LinuxNamespaceType::Ipc, &self.ipc),
            (LinuxNamespaceType::Uts, &self.uts),
            (LinuxNamespaceType::Mount, &Namespace::New),
            (LinuxNamespaceType::Cgroup, &self.cgroup),
        ];
        let mut namespaces = Vec::new();
        for (kind, namespace) in kinds {
            match namespace {
                Namespace::Host => {}
                Namespace::New => namespaces.push(spec_namespace(kind, None)),
                Namespace::Path(path) if path.is_absolute() => namespaces.push(spec_namespace(kind, Some(path))),
                Namespace::Path(path) => {
                    return Err(Error::option(
                        "namespace",
                        path.display().to_string(),
                        "its path must be absolute",
                    ));
                }
            }
        }
        if self.mappings.is_some() {
            namespaces.push(spec_namespace(LinuxNamespaceType::User, None));
        }
        Ok(namespaces)
    }

    fn sysctls(&self) -> Result<HashMap<String, String>> {
        let mut sysctls = HashMap::new();
        if self.network == Namespace::New {
            sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
            // The range names groups, which a user namespace may not have.
            if self.mappings.is_none() {
                sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
            }
        }
        for (name, value) in &self.sysctls {
            self.check_sysctl(name)?;
            sysctls.insert(name.clone(), value.clone());
        }
        Ok(sysctls)
    }

    /// Only what belongs to a namespace of the container's own may be set: anything else would set the host's.
    fn check_sysctl(&self, name: &str) -> Result<()> {
        let refuse = |reason: &str| Err(Error::option("sysctl", name, reason));
        if name.contains("..") || name.contains('/') || name.contains('\0') {
            return refuse("it is written with dots and no slash, as net.ipv4.ip_forward");
        }
        let ipc = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ];
        if name.starts_with("net.") {
            return if self.network == Namespace::Host {
                refuse("the container shares the host's network")
            } else {
                Ok(())
            };
        }
        if name.starts_with("fs.mqueue.") || ipc.contains(&name) {
            return if self.ipc == Namespace::Host {
                refuse("the container shares the host's IPC")
            } else {
                Ok(())
            };
        }
        match name {
            "kernel.domainname" if self.uts != Namespace::Host => Ok(()),
            "kernel.hostname" => refuse("use the hostname option"),
            _ => refuse("it belongs to no namespace, so setting it would set the host's"),
        }
    }
}

fn spec_namespace(kind: LinuxNamespaceType, path: Option<&Path>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace.set_path(path.map(Path::to_owned));
    namespace
}
