//! Annotations and hooks.

use std::collections::HashMap;

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{Hook, Hooks};

use super::SpecBuilder;
use crate::{Error, Result};

/// What annotations a container takes from its image (image spec, "Conversion to OCI Runtime Configuration").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageAnnotations {
    /// `org.opencontainers.image.*` for os, architecture, variant, author, time of creation, exposed ports and stop
    /// signal.
    #[default]
    Standard,
    /// Those, and every label of the image; a label of the same name wins.
    WithLabels,
    /// None.
    Ignore,
}

/// When a hook runs (runtime spec, "POSIX-platform Hooks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookPoint {
    /// In the runtime's namespaces, before pivot_root, and before the others of that time. Deprecated by the spec,
    /// and still in use.
    Prestart,
    /// In the runtime's namespaces, once the container's exist.
    CreateRuntime,
    /// In the container's namespaces, before pivot_root.
    CreateContainer,
    /// In the container, before its program.
    StartContainer,
    /// In the runtime's namespaces, after the program has begun.
    Poststart,
    /// In the runtime's namespaces, after the container was deleted.
    Poststop,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    of_image: ImageAnnotations,
    annotations: Vec<(String, String)>,
    hooks: Vec<(HookPoint, Hook)>,
}

impl SpecBuilder {
    /// An annotation; of two with one name the later wins.
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.annotations.push((name.into(), value.into()));
        self
    }

    /// What is taken from the image.
    pub fn image_annotations(mut self, which: ImageAnnotations) -> Self {
        self.annotations.of_image = which;
        self
    }

    /// A program that is run at a point of the container's life, after those given before it.
    pub fn hook(mut self, point: HookPoint, hook: Hook) -> Self {
        self.annotations.hooks.push((point, hook));
        self
    }
}

impl Options {
    pub(super) fn build(&self, image: Option<&ImageConfiguration>) -> Result<Option<HashMap<String, String>>> {
        let mut annotations = HashMap::new();
        if let Some(image) = image.filter(|_| self.of_image != ImageAnnotations::Ignore) {
            annotations.extend(of_image(image));
            let labels = image
                .labels_of_config()
                .filter(|_| self.of_image == ImageAnnotations::WithLabels);
            annotations.extend(
                labels
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        for (name, value) in &self.annotations {
            if name.is_empty() {
                return Err(Error::option("annotation", value, "its name is empty"));
            }
            annotations.insert(name.clone(), value.clone());
        }
        Ok((!annotations.is_empty()).then_some(annotations))
    }

    #[allow(deprecated)] // prestart is deprecated, and Docker and NVIDIA use it
    pub(super) fn hooks(&self) -> Option<Hooks> {
        let at = |wanted: HookPoint| {
            let hooks = self.hooks.iter().filter(|(point, _)| *point == wanted);
            let hooks: Vec<Hook> = hooks.map(|(_, hook)| hook.clone()).collect();
            (!hooks.is_empty()).then_some(hooks)
        };
        if self.hooks.is_empty() {
            return None;
        }
        let mut hooks = Hooks::default();
        hooks.set_prestart(at(HookPoint::Prestart));
        hooks.set_create_runtime(at(HookPoint::CreateRuntime));
        hooks.set_create_container(at(HookPoint::CreateContainer));
        hooks.set_start_container(at(HookPoint::StartContainer));
        hooks.set_poststart(at(HookPoint::Poststart));
        hooks.set_poststop(at(HookPoint::Poststop));
        Some(hooks)
    }
}

fn of_image(image: &ImageConfiguration) -> impl Iterator<Item = (String, String)> {
    let config = image.config().as_ref();
    let ports = config
        .and_then(|config| config.exposed_ports().clone())
        .filter(|ports| !ports.is_empty());
    let ports = ports.map(|mut ports| {
        ports.sort();
        ports.join(",")
    });
    let values = [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("variant", image.variant().clone()),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("exposedPorts", ports),
        ("stopSignal", config.and_then(|config| config.stop_signal().clone())),
    ];
    let given = values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    given.map(|(name, value)| (format!("org.opencontainers.image.{name}"), value))
}
