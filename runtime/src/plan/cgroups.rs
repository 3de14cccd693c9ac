use longshore_linux::AttrChange;
use oci_spec::runtime::Mount;

use super::Builder;
use super::options::MountOptions;
use super::paths::unsupported;
use crate::Result;

impl Builder<'_> {
    /// A mount of type `cgroup`.
    pub(super) fn cgroup_mount(&mut self, field: &str, mount: &Mount, options: MountOptions) -> Result<()> {
        let _ = (mount, options.attr == AttrChange::default());
        Err(unsupported(format!("{field}.type"), "mounts of cgroup"))
    }
}
