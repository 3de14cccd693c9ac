use super::{ALL, Devices, Kind, MAKE, READ, Rule, WRITE};
use crate::{Error, Result};

type Key = (Kind, Option<u32>, Option<u32>);

/// A default and the exceptions from it: all that the v1 controller knows. They are in the order in which they were first spoken of, as the kernel lists
/// them: the spec's before those that every container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct V1State {
    allow: bool,
    exceptions: Vec<(Key, u32)>,
}

impl V1State {
    pub(super) fn of(devices: &Devices) -> Result<Self> {
        let mut state = Self {
            allow: devices.otherwise,
            exceptions: Vec::new(),
        };
        for rule in &devices.rules {
            state.add(rule)?;
        }
        state.exceptions.retain(|(_, access)| *access != 0);
        Ok(state)
    }

    fn add(&mut self, rule: &Rule) -> Result<()> {
        let key = (rule.kind, rule.major, rule.minor);
        if rule.allow != self.allow {
            match self.exceptions.iter_mut().find(|(other, _)| *other == key) {
                Some((_, access)) => *access |= rule.access,
                None => self.exceptions.push((key, rule.access)),
            }
            return Ok(());
        }
        for (other, access) in &mut self.exceptions {
            if within(other, &key) {
                *access &= !rule.access;
            } else if overlaps(other, &key) && *access & rule.access != 0 {
                return Err(Error::Unsupported {
                    field: "linux.resources.devices".into(),
                    reason: format!(
                        "cgroup v1 can't keep '{}' and make an exception from it for '{}'; list what is allowed one by one",
                        line(other, *access),
                        line(&key, rule.access)
                    ),
                });
            }
        }
        Ok(())
    }

    /// What makes these rules of those that `devices.list` tells. Where both refuse all but what is listed, first comes what is added, then goes what
    /// is not in the new list. Other rules are written whole: the kernel does not tell what is refused where the rest is allowed.
    pub(in super::super) fn changes_from(&self, list: &str) -> Vec<(&'static str, String)> {
        let present: Option<Vec<(Key, u32)>> = list.lines().map(parse).collect();
        let Some(present) = present.filter(|_| !self.allow) else {
            return self.writes();
        };
        let differences = |a: &[(Key, u32)], b: &[(Key, u32)], file: &'static str| {
            let in_b = |key: &Key| {
                b.iter()
                    .find(|(other, _)| other == key)
                    .map_or(0, |(_, access)| *access)
            };
            let missing = |(key, access): &(Key, u32)| (*key, access & !in_b(key));
            let lines = a.iter().map(missing).filter(|(_, access)| *access != 0);
            lines
                .map(|(key, access)| (file, line(&key, access)))
                .collect::<Vec<_>>()
        };
        let mut writes = differences(&self.exceptions, &present, "devices.allow");
        writes.extend(differences(&present, &self.exceptions, "devices.deny"));
        writes
    }

    /// Files and lines, in order.
    pub(in super::super) fn writes(&self) -> Vec<(&'static str, String)> {
        let (reset, except) = if self.allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let mut writes = vec![(reset, "a".to_owned())];
        writes.extend(self.exceptions.iter().map(|(key, access)| (except, line(key, *access))));
        writes
    }
}

#[cfg(test)]
impl V1State {
    /// What the kernel decides about a single kind of access.
    pub(super) fn allows(&self, kind: Kind, major: u32, minor: u32, access: u32) -> bool {
        let device = (kind, Some(major), Some(minor));
        let excepted = self
            .exceptions
            .iter()
            .any(|(key, bits)| within(&device, key) && bits & access != 0);
        self.allow != excepted
    }
}

/// Whether every device of `a` is one of `b`.
fn within(a: &Key, b: &Key) -> bool {
    let covers = |a: Option<u32>, b: Option<u32>| b.is_none() || a == b;
    a.0 == b.0 && covers(a.1, b.1) && covers(a.2, b.2)
}

/// A line of `devices.list`: `c 1:3 rwm`. None for `a *:* rwm`, which stands for rules of the other kind.
fn parse(line: &str) -> Option<(Key, u32)> {
    let mut words = line.split_ascii_whitespace();
    let kind = match words.next()? {
        "b" => Kind::Block,
        "c" => Kind::Char,
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        text => text.parse().ok().map(Some),
    };
    let access = words.next()?.chars().map(|letter| match letter {
        'r' => READ,
        'w' => WRITE,
        _ => MAKE,
    });
    Some((
        (kind, number(major)?, number(minor)?),
        access.fold(0, |all, one| all | one),
    ))
}

fn overlaps(a: &Key, b: &Key) -> bool {
    let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    a.0 == b.0 && meet(a.1, b.1) && meet(a.2, b.2)
}

pub(super) fn line((kind, major, minor): &Key, access: u32) -> String {
    let kind = if *kind == Kind::Block { 'b' } else { 'c' };
    let number = |n: &Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let mut letters = String::with_capacity(3);
    for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')] {
        if access & ALL & bit != 0 {
            letters.push(letter);
        }
    }
    format!("{kind} {}:{} {letters}", number(major), number(minor))
}
