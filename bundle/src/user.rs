//! Users and groups of a root filesystem: passwd(5) and group(5), read as Docker and containerd read them, but with
//! no line believed that is not whole.

use std::path::Path;
use std::str::FromStr;

use crate::{Error, Result, RootFiles};

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const LIMIT: u64 = 1 << 20;
/// The largest id that Docker and containerd take; the kernel's `uid_t` goes further, but -1 has a meaning there.
const MAX_ID: u32 = i32::MAX as u32;
/// What setgroups(2) takes at most.
const MAX_GROUPS: usize = 65536;

/// Who runs: `user`, `uid`, `user:group`, in any mixture of names and numbers (image spec, `config.User`). Empty is
/// root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSpec {
    user: Option<NameOrId>,
    group: Option<NameOrId>,
}

/// A user, resolved in a root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedUser {
    /// Its number inside the container.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Supplementary groups, without duplicates; `gid` comes first, so that a process cannot shed the denials of a
    /// group that it is in (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
    /// Its home directory; `/` if it has no entry in `/etc/passwd`.
    pub home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NameOrId {
    Name(String),
    Id(u32),
}

impl NameOrId {
    /// All digits is an id, always, as in Docker: a user named `0` can't pose as another.
    fn parse(what: &'static str, text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let refuse = || Error::option(what, text, format!("ids go from 0 to {MAX_ID}"));
            let id = parse_id(text.as_bytes()).ok_or_else(refuse)?;
            return Ok(Some(Self::Id(id)));
        }
        if text.starts_with('-') && text[1..].bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::option(what, text, format!("ids go from 0 to {MAX_ID}")));
        }
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Error::option(what, text, "a name has no control characters"));
        }
        Ok(Some(Self::Name(text.to_owned())))
    }
}

impl UserSpec {
    /// A numeric user and group.
    pub fn ids(uid: u32, gid: u32) -> Self {
        Self {
            user: Some(NameOrId::Id(uid)),
            group: Some(NameOrId::Id(gid)),
        }
    }

    /// Looks the user up in `/etc/passwd` and `/etc/group` of `files`. Without a group, the user's own group and its
    /// supplementary groups apply; with one, only that.
    ///
    /// A number need not be known there; a name must be. Lines that are not whole and numeric where they should be
    /// are skipped.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for a name that is not there; what [`RootFiles::read`] fails with.
    pub fn resolve(&self, files: &dyn RootFiles) -> Result<ResolvedUser> {
        let passwd = files.read(Path::new("/etc/passwd"), LIMIT)?.unwrap_or_default();
        let entry = find_user(&passwd, self.user.as_ref())?;
        let mut user = ResolvedUser {
            uid: entry.uid,
            gid: entry.gid,
            additional_gids: Vec::new(),
            home: entry.home,
        };
        let group = files.read(Path::new("/etc/group"), LIMIT)?.unwrap_or_default();
        let mut others = Vec::new();
        match (&self.group, entry.name) {
            (Some(wanted), _) => user.gid = find_group(&group, wanted)?,
            (None, Some(name)) => others = groups_of(&group, &name),
            (None, None) => {}
        }
        user.additional_gids = unique(user.gid, others);
        if user.additional_gids.len() > MAX_GROUPS {
            let reason = format!("it is in more than {MAX_GROUPS} groups, which the kernel does not take");
            return Err(Error::option("user", user.uid.to_string(), reason));
        }
        Ok(user)
    }
}

impl FromStr for UserSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        if group.contains(':') {
            return Err(Error::option("user", text, "it is written user[:group]"));
        }
        Ok(Self {
            user: NameOrId::parse("user", user)?,
            group: NameOrId::parse("group", group)?,
        })
    }
}

/// The number of a group: given as one, or looked up in `/etc/group` of `files` (`--group-add`).
///
/// # Errors
/// As [`UserSpec::resolve`].
pub fn resolve_group(group: &str, files: &dyn RootFiles) -> Result<u32> {
    match NameOrId::parse("group", group)? {
        None => Err(Error::option("group", group, "it is empty")),
        Some(NameOrId::Id(id)) => Ok(id),
        Some(name) => find_group(&files.read(Path::new("/etc/group"), LIMIT)?.unwrap_or_default(), &name),
    }
}

struct PasswdEntry {
    name: Option<Vec<u8>>,
    uid: u32,
    gid: u32,
    home: String,
}

/// The first entry that fits, as getpwnam(3) and getpwuid(3) find it.
fn find_user(passwd: &[u8], wanted: Option<&NameOrId>) -> Result<PasswdEntry> {
    let root = NameOrId::Id(0);
    let wanted = wanted.unwrap_or(&root);
    let found = lines(passwd).find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [name, _, uid, gid, rest @ ..] = fields.as_slice() else {
            return None;
        };
        let (uid, gid) = (parse_id(uid)?, parse_id(gid)?);
        let fits = match wanted {
            NameOrId::Name(wanted) => *name == wanted.as_bytes(),
            NameOrId::Id(wanted) => uid == *wanted,
        };
        (fits && !name.is_empty()).then(|| PasswdEntry {
            name: Some(name.to_vec()),
            uid,
            gid,
            home: home(rest.get(1).copied()),
        })
    });
    match (found, wanted) {
        (Some(entry), _) => Ok(entry),
        (None, NameOrId::Name(name)) => Err(Error::UnknownUser(name.clone())),
        (None, NameOrId::Id(uid)) => Ok(PasswdEntry {
            name: None,
            uid: *uid,
            gid: 0,
            home: home(None),
        }),
    }
}

/// A home that is not an absolute path in UTF-8 would be of no use in the environment.
fn home(field: Option<&[u8]>) -> String {
    match field.map(std::str::from_utf8) {
        Some(Ok(home)) if home.starts_with('/') => home.to_owned(),
        _ => "/".to_owned(),
    }
}

fn find_group(group: &[u8], wanted: &NameOrId) -> Result<u32> {
    let name = match wanted {
        NameOrId::Id(id) => return Ok(*id),
        NameOrId::Name(name) => name,
    };
    group_entries(group)
        .find(|(entry, ..)| *entry == name.as_bytes())
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| Error::UnknownGroup(name.clone()))
}

fn groups_of(group: &[u8], user: &[u8]) -> Vec<u32> {
    group_entries(group)
        .filter(|(_, _, members)| members.split(|byte| *byte == b',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

fn group_entries(group: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    lines(group).filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [name, _, gid, rest @ ..] = fields.as_slice() else {
            return None;
        };
        let members = rest.first().copied().unwrap_or_default();
        (!name.is_empty()).then_some((*name, parse_id(gid)?, members))
    })
}

/// The lines worth looking at: no comments, no NIS inclusions (`+name`), nothing with a NUL, which no C program would
/// read as we do.
fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii())
        .filter(|line| !line.is_empty() && !b"#+-".contains(&line[0]) && !line.contains(&0))
}

fn parse_id(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let id: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    u32::try_from(id).ok().filter(|id| *id <= MAX_ID)
}

fn unique(first: u32, others: Vec<u32>) -> Vec<u32> {
    let mut seen = std::collections::HashSet::from([first]);
    let mut gids = vec![first];
    gids.extend(others.into_iter().filter(|gid| seen.insert(*gid)));
    gids
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
