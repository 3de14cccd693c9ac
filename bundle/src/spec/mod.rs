//! From an image's config and the caller's options to a runtime spec.

mod annotations;
mod cdi;
mod confinement;
mod device;
mod environment;
mod exec;
mod filesystem;
mod isolation;
mod mapping;
mod process;
mod resources;
mod rootless;
mod runc;
mod volume;

use oci_spec::image::{Config, ImageConfiguration};
use oci_spec::runtime::{Linux, Root, Spec};

use crate::{Result, RootFiles};

pub use annotations::{HookPoint, ImageAnnotations};
pub use confinement::{NewPrivileges, Seccomp};
pub use device::{Device, host_devices};
pub use exec::ExecSpec;
pub use filesystem::{ImageVolumes, RootAccess, default_masked_paths, default_readonly_paths, thermal_paths};
pub use isolation::Namespace;
pub use mapping::IdMappings;
pub use process::Terminal;
pub use resources::SwapLimit;
pub use rootless::{CgroupAccess, Rootless};
pub use runc::{CgroupVersion, runc_rootless_spec, runc_spec};
pub use volume::{Bind, Tmpfs};

/// The version of the runtime spec that the specs made here follow: the least that has all they use, so that older
/// executors take them.
pub const SPEC_VERSION: &str = "1.0.2";

/// Builds the runtime spec of a container from an image's config and the caller's options, as Docker would, but with
/// no way to gain privileges.
///
/// Nothing is checked until [`build`](Self::build), which is a pure function of the options and the [`RootFiles`]; it
/// does not look at the host.
///
/// ```
/// use longshore_bundle::{NoFiles, SpecBuilder};
///
/// let spec = SpecBuilder::without_image().args(["sleep", "1"]).user("1000:1000").memory(64 << 20).build(&NoFiles)?;
/// assert_eq!(spec.process().as_ref().expect("a process").user().uid(), 1000);
/// # Ok::<(), longshore_bundle::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing happens before `build`"]
pub struct SpecBuilder {
    image: Option<ImageConfiguration>,
    process: process::Options,
    filesystem: filesystem::Options,
    isolation: isolation::Options,
    confinement: confinement::Options,
    resources: resources::Options,
    annotations: annotations::Options,
    cdi: cdi::Options,
    rootless: Option<Rootless>,
}

impl SpecBuilder {
    /// A container of an image.
    pub fn new(image: &ImageConfiguration) -> Self {
        Self {
            image: Some(image.clone()),
            ..Self::default()
        }
    }

    /// A container of a bare root filesystem.
    pub fn without_image() -> Self {
        Self::default()
    }

    /// Checks all options and builds the spec. `files` is where users and groups are looked up; reading it may block,
    /// so call this where that is allowed.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with the option and what would be right;
    /// [`NotFound`](crate::ErrorKind::NotFound) for users and groups;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for what a rootless container can't have; what
    /// `files` fails with.
    pub fn build(&self, files: &dyn RootFiles) -> Result<Spec> {
        let mut spec = self.skeleton();
        let mut linux = self.isolation.linux()?;
        self.filesystem
            .apply(&mut spec, &mut linux, self.config(), &self.confinement)?;
        let process = self.process(files)?;
        self.confinement.apply(&mut linux, process.capabilities().as_ref());
        self.resources.apply(&mut linux, &self.confinement, process.user())?;
        self.cdi.apply(&mut spec, &mut linux);
        spec.set_hostname(self.isolation.hostname()?);
        spec.set_process(Some(process));
        spec.set_annotations(self.annotations.build(self.image.as_ref())?);
        spec.set_hooks(self.annotations.hooks());
        spec.set_linux(Some(linux));
        if let Some(mappings) = self.isolation.mappings() {
            rootless::fit_user_namespace(&mut spec, mappings)?;
        }
        if let Some(rootless) = &self.rootless {
            rootless.apply(&mut spec, &self.resources)?;
        }
        Ok(spec)
    }

    fn config(&self) -> Option<&Config> {
        self.image.as_ref()?.config().as_ref()
    }

    fn skeleton(&self) -> Spec {
        let mut spec = Spec::default();
        spec.set_version(SPEC_VERSION.to_owned());
        spec.set_domainname(None);
        let mut root = Root::default();
        root.set_path(self.filesystem.root_path());
        root.set_readonly(self.filesystem.read_only());
        spec.set_root(Some(root));
        spec
    }
}

/// A `linux` section with nothing in it.
fn empty_linux() -> Linux {
    let mut linux = Linux::default();
    linux.set_resources(None);
    linux.set_namespaces(None);
    linux.set_masked_paths(None);
    linux.set_readonly_paths(None);
    linux
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
