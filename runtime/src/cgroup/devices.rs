mod program;
mod v1;

use std::{fmt, io};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::group::Group;
use crate::{Error, Result};

use program::program;
use v1::V1State;

/// What may be done with a device, as the kernel's bits.
pub(super) const MAKE: u32 = 1;
pub(super) const READ: u32 = 2;
pub(super) const WRITE: u32 = 4;
pub(super) const ALL: u32 = MAKE | READ | WRITE;

/// Block or character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

/// One rule; the last one that speaks of a device and an access decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Kind,
    /// `None` is any.
    pub(super) major: Option<u32>,
    /// `None` is any.
    pub(super) minor: Option<u32>,
    pub(super) access: u32,
}

/// `linux.resources.devices` with the rules that every container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    /// Whether what no rule speaks of is allowed.
    pub(super) otherwise: bool,
    pub(super) rules: Vec<Rule>,
    /// Whether the spec says something about devices.
    pub(super) asked: bool,
}

/// What every container may use, and the right to make nodes of any device, which is worth nothing without using them.
const ALWAYS: [(Kind, Option<u32>, Option<u32>, u32); 10] = [
    (Kind::Char, None, None, MAKE),
    (Kind::Block, None, None, MAKE),
    (Kind::Char, Some(1), Some(3), ALL), // null
    (Kind::Char, Some(1), Some(5), ALL), // zero
    (Kind::Char, Some(1), Some(7), ALL), // full
    (Kind::Char, Some(1), Some(8), ALL), // random
    (Kind::Char, Some(1), Some(9), ALL), // urandom
    (Kind::Char, Some(5), Some(0), ALL), // tty
    (Kind::Char, Some(5), Some(2), ALL), // ptmx
    (Kind::Char, Some(136), None, ALL),  // pts/*
];

impl Devices {
    pub(super) fn compile(rules: Option<&[LinuxDeviceCgroup]>) -> Result<Self> {
        let rules = rules.unwrap_or_default();
        let mut devices = Self {
            otherwise: false,
            rules: Vec::new(),
            asked: !rules.is_empty(),
        };
        for (n, rule) in rules.iter().enumerate() {
            devices.add(rule, &format!("linux.resources.devices[{n}]"))?;
        }
        for (kind, major, minor, access) in ALWAYS {
            devices.rules.push(Rule {
                allow: true,
                kind,
                major,
                minor,
                access,
            });
        }
        Ok(devices)
    }

    /// The rules as v1 keeps them.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for an exception from an exception, which v1 does not have.
    pub(super) fn for_v1(&self) -> Result<V1State> {
        V1State::of(self)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup, field: &str) -> Result<()> {
        let access = access(rule.access().as_deref().unwrap_or("rwm"), field)?;
        let major = number(rule.major(), &format!("{field}.major"))?;
        let minor = number(rule.minor(), &format!("{field}.minor"))?;
        let kinds: &[Kind] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => &[Kind::Block, Kind::Char],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Char],
            LinuxDeviceType::P => {
                let reason = "p (a FIFO) is no device that a cgroup could forbid".to_owned();
                return Err(Error::InvalidSpec {
                    field: format!("{field}.type"),
                    reason,
                });
            }
        };
        if kinds.len() == 2 && major.is_none() && minor.is_none() && access == ALL {
            self.rules.clear();
            self.otherwise = rule.allow();
            return Ok(());
        }
        self.rules.extend(kinds.iter().map(|kind| Rule {
            allow: rule.allow(),
            kind: *kind,
            major,
            minor,
            access,
        }));
        Ok(())
    }
}

fn number(number: Option<i64>, field: &str) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| Error::InvalidSpec {
            field: field.to_owned(),
            reason: format!("is {n}, which is no device's number; leave it out for any"),
        }),
    }
}

fn access(text: &str, field: &str) -> Result<u32> {
    let mut access = 0;
    for letter in text.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MAKE,
            // runc passes over it, and configurations have it.
            'a' if text.len() > 1 => 0,
            _ => {
                let reason = format!("'{text}' has {letter:?}; r, w and m are allowed");
                return Err(Error::InvalidSpec {
                    field: format!("{field}.access"),
                    reason,
                });
            }
        };
    }
    Ok(if access == 0 { ALL } else { access })
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |allow| if allow { "allow" } else { "deny" };
        writeln!(f, "devices: {} all", word(self.otherwise))?;
        for rule in &self.rules {
            let line = v1::line(&(rule.kind, rule.major, rule.minor), rule.access);
            writeln!(f, "devices: {} {line}", word(rule.allow))?;
        }
        Ok(())
    }
}

/// Attaches the rules to a v2 group, in place of those that are there.
pub(super) fn attach(group: &Group, devices: &Devices) -> io::Result<()> {
    let directory = group.dir()?;
    let program = longshore_linux::load_device_program(&program(devices))?;
    // A fresh group has none; a kernel that can't list them can't replace one.
    let mut old = longshore_linux::device_programs(directory).unwrap_or_default();
    let replaced = if old.len() == 1 { old.pop() } else { None };
    longshore_linux::attach_device_program(directory, &program, replaced.as_ref())?;
    old.iter()
        .try_for_each(|old| longshore_linux::detach_device_program(directory, old))
}

#[cfg(test)]
mod tests;
