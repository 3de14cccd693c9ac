use longshore_linux::{AttrChange, Depth, MountAttr, Propagation};

use super::op::{FsParam, MountIds};
use super::paths::cstring;
use crate::Result;

/// Relative access times: no bit in the kernel's numbers, where they are the absence of the other modes.
const RELATIME: MountAttr = MountAttr::from_bits_retain(1 << 63);
/// Attributes that are there or not, access times apart.
const PLAIN: MountAttr = MountAttr::RDONLY
    .union(MountAttr::NOSUID)
    .union(MountAttr::NODEV)
    .union(MountAttr::NOEXEC)
    .union(MountAttr::NOSYMFOLLOW);
/// Of those, the ones that the kernel locks on mounts which a user namespace got from its parent (mount_namespaces(7)).
const LOCKABLE: MountAttr = PLAIN.difference(MountAttr::NOSYMFOLLOW);

/// Flags of a filesystem as a whole: mount(2)'s bits, and the names that fsconfig(2) has for them.
const OF_FILESYSTEM: [(&str, u32); 4] = [
    ("sync", 1 << 4),
    ("mand", 1 << 6),
    ("dirsync", 1 << 7),
    ("lazytime", 1 << 25),
];
/// Another one, for which fsconfig(2) has no name.
const I_VERSION: u32 = 1 << 23;

/// The options of a mount, as in fstab(5), sorted by who takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    set: MountAttr,
    clear: MountAttr,
    /// Whether a word was about attributes at all.
    said: bool,
    filesystem: u32,
    /// Changes of all mounts below too.
    pub(crate) tree_attr: AttrChange,
    /// In this order.
    pub(crate) propagation: Vec<(Propagation, Depth)>,
    /// `bind` or `rbind`.
    pub(crate) bind: Option<Depth>,
    /// `idmap` or `ridmap`.
    pub(crate) idmap: Option<Depth>,
    /// What that means for this mount.
    pub(crate) id_map: Option<MountIds>,
    pub(crate) remount: bool,
    pub(crate) copy_up: bool,
    /// What is left for the filesystem.
    pub(crate) params: Vec<FsParam>,
}

impl MountOptions {
    /// Whether nothing of it may be written.
    pub(crate) fn is_read_only(&self) -> bool {
        self.set.contains(MountAttr::RDONLY)
    }

    /// Leaves `ro` out.
    pub(crate) fn without_read_only(&self) -> Self {
        Self {
            set: self.set - MountAttr::RDONLY,
            ..self.clone()
        }
    }

    /// What access times become, if any word chose. The precedence is the kernel's.
    fn access_times(&self) -> Option<MountAttr> {
        let chosen = self.set & (MountAttr::NOATIME | MountAttr::STRICTATIME | MountAttr::NODIRATIME | RELATIME);
        if chosen.is_empty() {
            return None;
        }
        let mode = match chosen {
            c if c.contains(MountAttr::STRICTATIME) => MountAttr::STRICTATIME,
            c => c & MountAttr::NOATIME,
        };
        Some(mode | chosen & MountAttr::NODIRATIME)
    }

    /// The attributes of a new mount.
    pub(crate) fn of_new(&self) -> AttrChange {
        AttrChange {
            set: self.set & PLAIN | self.access_times().unwrap_or_default(),
            ..AttrChange::default()
        }
    }

    /// The attributes of a copied mount, or `None` if the source's are to stay: once one is named, the others are cleared, except
    /// for access times, which stay unless one is set. That is what mount(2) does to a bind mount that is remounted, and what people who
    /// write `ro` or `dev` have come to expect.
    pub(crate) fn exactly(&self) -> Option<AttrChange> {
        self.said.then(|| self.change(PLAIN))
    }

    /// The same where attributes of the source are locked: those stay, unless a word clears them, which is an error then.
    pub(crate) fn as_far_as_unlocked(&self) -> AttrChange {
        self.change(self.clear & LOCKABLE | MountAttr::NOSYMFOLLOW)
    }

    /// What the words clear that can be locked.
    pub(crate) fn cleared(&self) -> MountAttr {
        self.clear & LOCKABLE
    }

    /// What is said and no more, for a mount that others describe.
    pub(crate) fn as_said(&self) -> AttrChange {
        self.change(self.clear & PLAIN)
    }

    fn change(&self, clear: MountAttr) -> AttrChange {
        let times = self.access_times();
        let all = MountAttr::ATIME | MountAttr::NODIRATIME;
        let set = self.set & PLAIN | times.unwrap_or_default();
        let clear = clear | if times.is_some() { all } else { MountAttr::empty() };
        AttrChange {
            set,
            clear: clear - (set - MountAttr::ATIME),
            propagation: None,
        }
    }

    /// Flags of the filesystem as fsconfig(2) names them; `None` if it has no name for one.
    pub(crate) fn filesystem_flags(&self) -> Option<Vec<FsParam>> {
        let named = OF_FILESYSTEM.iter().filter(|(_, bit)| self.filesystem & bit != 0);
        let flag = |(name, _): &(&str, u32)| FsParam {
            key: std::ffi::CString::new(*name).expect("the names have no null"),
            value: None,
        };
        (self.filesystem & I_VERSION == 0).then(|| named.map(flag).collect())
    }

    /// The same as mount(2) has them.
    pub(crate) fn filesystem_bits(&self) -> u32 {
        self.filesystem
    }
}

/// What a word of the options does.
enum Word {
    Set(MountAttr),
    Clear(MountAttr),
    SetOfFilesystem(u32),
    ClearOfFilesystem(u32),
}

/// The attributes by name (mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS").
fn attribute(word: &str) -> Option<Word> {
    use Word::{Clear, Set};
    Some(match word {
        "ro" => Set(MountAttr::RDONLY),
        "rw" => Clear(MountAttr::RDONLY),
        "nosuid" => Set(MountAttr::NOSUID),
        "suid" => Clear(MountAttr::NOSUID),
        "nodev" => Set(MountAttr::NODEV),
        "dev" => Clear(MountAttr::NODEV),
        "noexec" => Set(MountAttr::NOEXEC),
        "exec" => Clear(MountAttr::NOEXEC),
        "noatime" => Set(MountAttr::NOATIME),
        "atime" => Clear(MountAttr::NOATIME),
        "strictatime" => Set(MountAttr::STRICTATIME),
        "nostrictatime" => Clear(MountAttr::STRICTATIME),
        "relatime" => Set(RELATIME),
        "norelatime" => Clear(RELATIME),
        "nodiratime" => Set(MountAttr::NODIRATIME),
        "diratime" => Clear(MountAttr::NODIRATIME),
        "nosymfollow" => Set(MountAttr::NOSYMFOLLOW),
        "symfollow" => Clear(MountAttr::NOSYMFOLLOW),
        _ => return None,
    })
}

/// The same for flags of the whole filesystem. A bind mount has none: there the kernel takes no notice of them, and neither do others.
fn of_filesystem(word: &str) -> Option<Word> {
    use Word::{ClearOfFilesystem, SetOfFilesystem};
    let bit = |name: &str| OF_FILESYSTEM.iter().find(|(n, _)| *n == name).map(|(_, bit)| *bit);
    Some(match word {
        "iversion" => SetOfFilesystem(I_VERSION),
        "noiversion" => ClearOfFilesystem(I_VERSION),
        "async" => ClearOfFilesystem(bit("sync")?),
        // Whether the kernel logs what it thinks of the options changes no mount.
        "silent" | "loud" => ClearOfFilesystem(0),
        "nomand" | "nolazytime" => ClearOfFilesystem(bit(&word[2..])?),
        _ => SetOfFilesystem(bit(word)?),
    })
}

fn propagation(word: &str) -> Option<(Propagation, Depth)> {
    Some(match word {
        "private" => (Propagation::Private, Depth::Mount),
        "rprivate" => (Propagation::Private, Depth::Tree),
        "shared" => (Propagation::Shared, Depth::Mount),
        "rshared" => (Propagation::Shared, Depth::Tree),
        "slave" => (Propagation::Slave, Depth::Mount),
        "rslave" => (Propagation::Slave, Depth::Tree),
        "unbindable" => (Propagation::Unbindable, Depth::Mount),
        "runbindable" => (Propagation::Unbindable, Depth::Tree),
        _ => return None,
    })
}

/// What `linux.rootfsPropagation` says.
pub(crate) fn root_propagation(word: &str) -> Option<(Propagation, Depth)> {
    propagation(word)
}

/// Sorts the options; the last of two that contradict each other wins.
pub(crate) fn sort_options<'a>(field: &str, options: impl IntoIterator<Item = &'a str>) -> Result<MountOptions> {
    let mut sorted = MountOptions::default();
    for option in options {
        // Some tools put several into one string.
        for word in split(option) {
            sort_word(field, word, &mut sorted)?;
        }
    }
    Ok(sorted)
}

/// Whether a word is not one of those that are left for the filesystem.
pub(crate) fn knows_option(word: &str) -> bool {
    sort_options("mounts", [word]).is_ok_and(|sorted| sorted.params.is_empty())
}

/// Splits at commas, except for those in quotes (the categories of a security context) and behind a backslash (overlay's).
fn split(option: &str) -> Vec<&str> {
    let (mut words, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in option.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                words.push(&option[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&option[start..]);
    words.retain(|w| !w.is_empty());
    words
}

fn sort_word(field: &str, word: &str, sorted: &mut MountOptions) -> Result<()> {
    if let Some(attribute) = attribute(word).or_else(|| of_filesystem(word)) {
        sorted.said = true;
        match attribute {
            Word::Set(attr) => {
                sorted.set |= attr;
                sorted.clear -= attr;
            }
            Word::Clear(attr) => {
                sorted.set -= attr;
                sorted.clear |= attr;
            }
            Word::SetOfFilesystem(bit) => sorted.filesystem |= bit,
            Word::ClearOfFilesystem(bit) => sorted.filesystem &= !bit,
        }
    } else if let Some(propagation) = propagation(word) {
        sorted.propagation.push(propagation);
    } else if let Some(recursive) = word.strip_prefix('r').and_then(attribute) {
        for_the_tree(&mut sorted.tree_attr, recursive);
    } else {
        match word {
            "bind" => sorted.bind = Some(Depth::Mount),
            "rbind" => sorted.bind = Some(Depth::Tree),
            "idmap" => sorted.idmap = Some(Depth::Mount),
            "ridmap" => sorted.idmap = Some(Depth::Tree),
            "remount" => sorted.remount = true,
            "tmpcopyup" => sorted.copy_up = true,
            "defaults" => {}
            _ => sorted.params.push(param(field, word)?),
        }
    }
    Ok(())
}

/// Here access times are one choice of three, as mount_setattr(2) has them: what clears one chooses relative ones.
fn for_the_tree(change: &mut AttrChange, word: Word) {
    let (set, clear) = match word {
        Word::Set(attr) => (attr, attr),
        Word::Clear(attr) => (MountAttr::empty(), attr),
        Word::SetOfFilesystem(_) | Word::ClearOfFilesystem(_) => return,
    };
    let times = MountAttr::ATIME | RELATIME;
    if clear.intersects(times) {
        change.set -= MountAttr::ATIME;
        change.clear |= MountAttr::ATIME;
    } else {
        change.set -= clear;
        change.clear |= clear;
    }
    change.set |= set - RELATIME;
    change.clear -= set - MountAttr::ATIME - RELATIME;
}

fn param(field: &str, word: &str) -> Result<FsParam> {
    Ok(match word.split_once('=') {
        Some((key, value)) => {
            // Quotes keep the commas of a security context from mount(8), and are no part of it.
            let value = match key {
                "context" | "fscontext" | "defcontext" | "rootcontext" => value.trim_matches('"'),
                _ => value,
            };
            FsParam {
                key: cstring(field, key)?,
                value: Some(cstring(field, value)?),
            }
        }
        None => FsParam {
            key: cstring(field, word)?,
            value: None,
        },
    })
}

#[cfg(test)]
mod tests;
