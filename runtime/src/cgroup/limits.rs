mod cpu;
mod io;
mod memory;
mod merge;
mod other;

use std::collections::BTreeSet;
use std::fmt;

use oci_spec::runtime::LinuxResources;

use super::devices::Devices;
use super::group::Group;
use super::host::{Home, Host};
use crate::{Error, Result};

/// `linux.resources`, checked and turned into what is written where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(super) writes: Vec<Write>,
    pub(super) devices: Devices,
    /// Memory limits that must be above what is used already.
    pub(super) above_usage: Option<AboveUsage>,
    /// Whether the container is to have a group in every hierarchy of v1.
    pub(super) everywhere: bool,
}

/// What `checkBeforeUpdate` is about, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AboveUsage {
    pub(super) limit: Option<i64>,
    pub(super) with_swap: Option<i64>,
}

/// One file that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) home: Home,
    pub(super) controller: String,
    /// The field that asks for it.
    pub(super) field: String,
    /// Its name; the first one that exists, since kernels name some differently.
    pub(super) files: Vec<String>,
    pub(super) value: Value,
    pub(super) missing: Missing,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// To each of the files its own: they have different scales.
    ByFile(Vec<String>),
    /// Another period for the quota that `cpu.max` has.
    Period(u64),
}

impl Value {
    /// The text for the group's file of this number.
    pub(super) fn text(&self, group: &Group, file: usize) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::ByFile(texts) => Ok(texts[file].clone()),
            Self::Period(period) => {
                let present = group.read("cpu.max")?.unwrap_or_default();
                Ok(format!(
                    "{} {period}",
                    present.split_ascii_whitespace().next().unwrap_or("max")
                ))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::ByFile(texts) => f.write_str(texts.first().map_or("", String::as_str)),
            Self::Period(period) => write!(f, "<quota> {period}"),
        }
    }
}

/// One line for each write, in order: `pids.max = 64`; then the device rules, `devices: allow c 1:3 rwm`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for write in &self.writes {
            writeln!(
                f,
                "{} = {}",
                write.files.first().map_or("", String::as_str),
                write.value
            )?;
        }
        write!(f, "{}", self.devices)
    }
}

/// What it means when none of the files exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The kernel can't do it.
    Unsupported,
    /// What was asked for holds anyway.
    Fine,
}

impl Limits {
    /// Compiles the limits of a container for a machine, all at once: nothing is written before all of it is found valid.
    ///
    /// A number of 0 is no limit, as in runc (but for `cpu.idle` and throttles; of processes, it is 1). On v2, `cpu.shares` become `cpu.weight` such that the
    /// default of 1024 is the default of 100; `memory.swap`, which includes memory, becomes `memory.swap.max`, which does not; and
    /// `memory.reservation` is `memory.low`.
    ///
    /// Without `devices`, or with them, the rules start from a refusal of all devices and end with those that every container may
    /// use (`null`, `zero`, `full`, `random`, `urandom`, `tty`, `ptmx`, `pts`; making any node), as in runc.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) and [`Unsupported`](crate::ErrorKind::Unsupported), with the field.
    pub fn compile(resources: Option<&LinuxResources>, host: &Host) -> Result<Self> {
        let none = LinuxResources::default();
        let resources = resources.unwrap_or(&none);
        let mut builder = Builder {
            host,
            writes: Vec::new(),
        };
        let mut above_usage = None;
        if let Some(cpu) = resources.cpu() {
            cpu::cpu(&mut builder, cpu)?;
        }
        if let Some(memory) = resources.memory() {
            memory::memory(&mut builder, memory)?;
            above_usage = (memory.check_before_update() == Some(true)).then(|| AboveUsage {
                limit: memory.limit().filter(|limit| *limit > 0),
                with_swap: memory.swap().filter(|swap| *swap > 0),
            });
        }
        if let Some(block_io) = resources.block_io() {
            io::block_io(&mut builder, block_io)?;
        }
        other::other(&mut builder, resources)?;
        let devices = Devices::compile(resources.devices().as_deref())?;
        if host.home("devices") == Some(Home::V1) {
            devices.for_v1()?;
        }
        Ok(Self {
            writes: builder.writes,
            devices,
            above_usage,
            everywhere: false,
        })
    }

    /// The same for a container that has a group in every hierarchy of v1, as one that sees the hierarchies must: where it had none, it would see the
    /// groups of all others.
    #[must_use]
    pub fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// Compiles a change of limits: what is written, and all limits of the container after it. What the change leaves out stays, but where the
    /// kernel wants two numbers at once, the other one is taken from `present`.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_update(
        present: Option<&LinuxResources>,
        change: &LinuxResources,
        host: &Host,
    ) -> Result<(Self, LinuxResources)> {
        let (all, written) = merge::merge(present, change, host.home("memory"));
        Ok((Self::compile(Some(&written), host)?, all))
    }

    /// The first field that a group is needed for, if any.
    pub(super) fn first_field(&self) -> Option<&str> {
        self.writes.first().map(|w| w.field.as_str())
    }

    /// The controllers of one version that limits are written to.
    pub(super) fn controllers(&self, home: Home) -> BTreeSet<&str> {
        self.writes
            .iter()
            .filter(|w| w.home == home)
            .map(|w| w.controller.as_str())
            .collect()
    }
}

/// Gathers the writes.
#[derive(Debug)]
struct Builder<'a> {
    host: &'a Host,
    writes: Vec<Write>,
}

impl Builder<'_> {
    /// The version that a controller is bound to.
    fn home(&self, controller: &str, field: &str) -> Result<Home> {
        self.host.home(controller).ok_or_else(|| {
            unsupported(
                field,
                format!(
                    "this machine has no '{controller}' cgroup controller mounted; enable it or leave the limit out"
                ),
            )
        })
    }

    fn set(
        &mut self,
        home: Home,
        controller: &str,
        field: &str,
        files: &[&str],
        value: impl Into<String>,
    ) -> &mut Write {
        self.writes.push(Write {
            home,
            controller: controller.to_owned(),
            field: field.to_owned(),
            files: files.iter().map(|f| (*f).to_owned()).collect(),
            value: Value::Text(value.into()),
            missing: Missing::Unsupported,
        });
        self.writes.last_mut().expect("it was just pushed")
    }
}

/// v1's shares as v2's weight.
#[cfg(feature = "systemd")]
pub(super) fn cpu_weight(shares: u64) -> u64 {
    cpu::weight(shares)
}

fn invalid(field: &str, reason: impl Into<String>) -> Error {
    Error::InvalidSpec {
        field: field.to_owned(),
        reason: reason.into(),
    }
}

fn unsupported(field: &str, reason: impl Into<String>) -> Error {
    Error::Unsupported {
        field: field.to_owned(),
        reason: reason.into(),
    }
}

/// A setting that v2 does not have.
fn v1_only(field: &str) -> Error {
    unsupported(field, "cgroup v2 has nothing like it; leave it out")
}

#[cfg(test)]
mod tests;
