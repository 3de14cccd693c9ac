use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use longshore::bundle::{CgroupVersion, runc_spec};
use longshore::oci_spec::runtime::Spec;
use longshore::runtime::ContainerId;

/// What statfs(2) tells of a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A bundle as `runc spec` makes it, but without a terminal, whose program is busybox.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
}

impl Bundle {
    /// None without a busybox.
    pub(crate) fn new() -> Option<Self> {
        let mut places = ["/bin/busybox", "/usr/bin/busybox"].into_iter();
        let busybox = places.find(|place| Path::new(place).exists())?;
        // State belongs into memory, as runtimes have it.
        let in_memory = |place: &&str| rustix::fs::statfs(*place).is_ok_and(|fs| fs.f_type as u64 == TMPFS_MAGIC);
        let place = ["/run", "/dev/shm"].into_iter().find(in_memory);
        let place = place.map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = tempfile::tempdir_in(place).expect("a temporary directory");
        for sub in ["bin", "dev", "proc", "sys"] {
            fs::create_dir_all(directory.path().join("rootfs").join(sub)).expect("a directory");
        }
        let bin = directory.path().join("rootfs/bin");
        fs::copy(busybox, bin.join("busybox")).expect("a copy");
        for name in ["true", "sleep"] {
            symlink("busybox", bin.join(name)).expect("a link");
        }
        let bundle = Self { directory };
        bundle.write("true", &["/bin/true"]);
        bundle.write("sleep", &["/bin/sleep", "100000"]);
        Some(bundle)
    }

    fn write(&self, name: &str, args: &[&str]) {
        let path = self.path().join(name);
        fs::create_dir(&path).expect("a directory");
        let spec = serde_json::to_vec(&spec(args, &self.rootfs())).expect("JSON");
        fs::write(path.join("config.json"), spec).expect("a file");
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The bundle of a container that ends at once.
    pub(crate) fn short(&self) -> PathBuf {
        self.path().join("true")
    }

    /// The bundle of a container that stays.
    pub(crate) fn long(&self) -> PathBuf {
        self.path().join("sleep")
    }
}

/// The spec of `runc spec`, running this.
pub(crate) fn spec(args: &[&str], rootfs: &Path) -> Spec {
    let version = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        CgroupVersion::V2
    } else {
        CgroupVersion::V1
    };
    let mut spec = runc_spec(version);
    let root = spec.root_mut().as_mut().expect("it has one");
    root.set_path(rootfs.to_owned());
    let process = spec.process_mut().as_mut().expect("it has one");
    process.set_terminal(Some(false));
    process.set_args(Some(args.iter().map(|&arg| arg.to_owned()).collect()));
    // Not inheritable, they could not be ambient, which each runtime would say in words of its own.
    let mut capabilities = process.capabilities().clone().expect("it has some");
    capabilities.set_ambient(None);
    process.set_capabilities(Some(capabilities));
    spec
}

/// An id that no other container of this run has.
pub(crate) fn new_id() -> ContainerId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ContainerId::new(format!("bench-{}-{number}", std::process::id())).expect("an id")
}
