//! `root` and `mounts`, and which paths of procfs and sysfs are hidden.

use std::path::{Path, PathBuf};

use oci_spec::image::Config;
use oci_spec::runtime::{Linux, Mount, Spec};

use super::volume::{Bind, Tmpfs, Wanted, mount};
use super::{SpecBuilder, confinement};
use crate::Result;

/// Whether the root filesystem can be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootAccess {
    /// It can, by who its permissions say.
    #[default]
    ReadWrite,
    /// It can't; mounts on it can.
    ReadOnly,
}

/// What becomes of the `Volumes` of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageVolumes {
    /// They are ordinary directories of the container's own snapshot: they hold what the image put there, and go when
    /// the container goes. Not writable under [`RootAccess::ReadOnly`].
    #[default]
    InRoot,
    /// Each is an empty tmpfs.
    Tmpfs,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    root: PathBuf,
    access: RootAccess,
    volumes: ImageVolumes,
    mounts: Vec<Wanted>,
    masked: Option<Vec<String>>,
    also_masked: Vec<String>,
    readonly: Option<Vec<String>>,
    shm_size: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: "rootfs".into(),
            access: RootAccess::default(),
            volumes: ImageVolumes::default(),
            mounts: Vec::new(),
            masked: None,
            also_masked: Vec::new(),
            readonly: None,
            shm_size: 64 << 20,
        }
    }
}

impl SpecBuilder {
    /// Where the root filesystem is, relative to the bundle. Default: `rootfs`.
    pub fn root_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.filesystem.root = path.into();
        self
    }

    /// Whether the root filesystem can be written to. Default: it can.
    pub fn root_access(mut self, access: RootAccess) -> Self {
        self.filesystem.access = access;
        self
    }

    /// Makes the root filesystem read-only.
    pub fn read_only(self) -> Self {
        self.root_access(RootAccess::ReadOnly)
    }

    /// What becomes of the image's `Volumes`.
    pub fn image_volumes(mut self, volumes: ImageVolumes) -> Self {
        self.filesystem.volumes = volumes;
        self
    }

    /// Mounts a directory or file of the host.
    pub fn bind(mut self, bind: Bind) -> Self {
        self.filesystem.mounts.push(Wanted::Bind(bind));
        self
    }

    /// Mounts an empty tmpfs.
    pub fn tmpfs(mut self, tmpfs: Tmpfs) -> Self {
        self.filesystem.mounts.push(Wanted::Tmpfs(tmpfs));
        self
    }

    /// Any other mount of the runtime spec. Of two mounts with one destination, the later is taken; one of the
    /// caller's stands in for a default one.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.filesystem.mounts.push(Wanted::Spec(Box::new(mount)));
        self
    }

    /// Paths that are hidden in the container, in place of [`default_masked_paths`].
    pub fn masked_paths<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.filesystem.masked = Some(paths.into_iter().map(Into::into).collect());
        self
    }

    /// Further paths to hide, such as [`thermal_paths`].
    pub fn mask<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.filesystem.also_masked.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Paths that can only be read in the container, in place of [`default_readonly_paths`].
    pub fn readonly_paths<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.filesystem.readonly = Some(paths.into_iter().map(Into::into).collect());
        self
    }

    /// Size of `/dev/shm` in bytes. Default: 64 MiB.
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.filesystem.shm_size = bytes;
        self
    }
}

impl Options {
    pub(super) fn root_path(&self) -> PathBuf {
        self.root.clone()
    }

    pub(super) fn read_only(&self) -> Option<bool> {
        (self.access == RootAccess::ReadOnly).then_some(true)
    }

    pub(super) fn apply(
        &self,
        spec: &mut Spec,
        linux: &mut Linux,
        config: Option<&Config>,
        confinement: &confinement::Options,
    ) -> Result<()> {
        spec.set_mounts(Some(self.mounts(config, confinement)?));
        let (mut masked, readonly) = match confinement.is_privileged() {
            true => (
                self.masked.clone().unwrap_or_default(),
                self.readonly.clone().unwrap_or_default(),
            ),
            false => (
                self.masked.clone().unwrap_or_else(default_masked_paths),
                self.readonly.clone().unwrap_or_else(default_readonly_paths),
            ),
        };
        masked.extend(self.also_masked.iter().cloned());
        linux.set_masked_paths((!masked.is_empty()).then_some(masked));
        linux.set_readonly_paths((!readonly.is_empty()).then_some(readonly));
        Ok(())
    }

    /// The default mounts that the caller left, then the caller's, parents before what is below them.
    fn mounts(&self, config: Option<&Config>, confinement: &confinement::Options) -> Result<Vec<Mount>> {
        let mut wanted: Vec<Mount> = Vec::new();
        for mount in self.image_volumes(config).chain(self.mounts.iter().cloned()) {
            let mount = mount.to_mount()?;
            wanted.retain(|known| known.destination() != mount.destination());
            wanted.push(mount);
        }
        wanted.sort_by_key(|mount| mount.destination().components().count());
        let own_dev = wanted.iter().any(|mount| mount.destination() == Path::new("/dev"));
        let mut mounts = default_mounts(self.shm_size);
        if confinement.is_privileged() {
            mounts.iter_mut().for_each(make_writable);
        }
        mounts.retain(|mount| {
            let replaced = wanted.iter().any(|own| own.destination() == mount.destination());
            !(replaced || own_dev && mount.destination().starts_with("/dev"))
        });
        mounts.append(&mut wanted);
        Ok(mounts)
    }

    fn image_volumes(&self, config: Option<&Config>) -> impl Iterator<Item = Wanted> {
        let wanted = self.volumes == ImageVolumes::Tmpfs;
        let volumes = config.filter(|_| wanted).and_then(|config| config.volumes().clone());
        let mut volumes = volumes.unwrap_or_default();
        volumes.sort();
        volumes
            .into_iter()
            .map(|path| Wanted::Tmpfs(Tmpfs::new(path).option("exec")))
    }
}

/// Docker's mounts. `/proc` and `/dev` come before what hides parts of them.
fn default_mounts(shm_size: u64) -> Vec<Mount> {
    let options = |list: &str| list.split(',').map(str::to_owned).collect();
    let shm = format!("nosuid,noexec,nodev,mode=1777,size={shm_size}");
    vec![
        mount("/proc", "proc", "proc", options("nosuid,noexec,nodev")),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            options("nosuid,strictatime,mode=755,size=65536k"),
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            options("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ),
        mount("/dev/shm", "tmpfs", "shm", options(&shm)),
        mount("/dev/mqueue", "mqueue", "mqueue", options("nosuid,noexec,nodev")),
        mount("/sys", "sysfs", "sysfs", options("nosuid,noexec,nodev,ro")),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", options("ro,nosuid,noexec,nodev")),
    ]
}

fn make_writable(mount: &mut Mount) {
    if let Some(options) = mount.options_mut() {
        options.retain(|option| option != "ro");
    }
}

/// What is hidden from every container: files of procfs and sysfs that tell of the host, or that could hurt it
/// (Docker's list).
pub fn default_masked_paths() -> Vec<String> {
    let paths = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    paths.map(str::to_owned).to_vec()
}

/// What every container can only read: parts of procfs whose files act on the host (Docker's list).
pub fn default_readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        .map(str::to_owned)
        .to_vec()
}

/// The thermal interrupt counters of this host's processors, which Docker hides too: they tell what other programs
/// do. They depend on the host, so [`SpecBuilder`] does not hide them by itself: pass them to [`SpecBuilder::mask`].
pub fn thermal_paths() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new();
    };
    let mut paths: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().join("thermal_throttle")))
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.to_str()?.to_owned()))
        .collect();
    paths.sort();
    paths
}
