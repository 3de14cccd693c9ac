use longshore_linux::{AttrChange, Depth, MountAttr, Propagation};

use super::op::FsParam;
use super::paths::{cstring, unsupported};
use crate::Result;

/// The options of a mount, as in fstab(5), sorted by who takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) attr: AttrChange,
    pub(crate) tree_attr: AttrChange,
    /// `bind` or `rbind`.
    pub(crate) bind: Option<Depth>,
    /// What is left for the filesystem.
    pub(crate) params: Vec<FsParam>,
}

/// What a word of the options does.
enum Word {
    Set(MountAttr),
    Clear(MountAttr),
    Nothing,
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
        "strictatime" => Set(MountAttr::STRICTATIME),
        // Relative access times are the absence of the other modes.
        "atime" | "relatime" | "norelatime" | "nostrictatime" => Clear(MountAttr::ATIME),
        "nodiratime" => Set(MountAttr::NODIRATIME),
        "diratime" => Clear(MountAttr::NODIRATIME),
        "nosymfollow" => Set(MountAttr::NOSYMFOLLOW),
        "symfollow" => Clear(MountAttr::NOSYMFOLLOW),
        _ => return None,
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

fn apply(change: &mut AttrChange, word: Word) {
    match word {
        Word::Set(attr) => {
            if attr.intersects(MountAttr::ATIME) {
                change.set -= MountAttr::ATIME;
            }
            change.set |= attr;
            change.clear -= attr;
        }
        Word::Clear(attr) => {
            change.set -= attr;
            change.clear |= attr;
        }
        Word::Nothing => {}
    }
}

/// Sorts the options; the last of two that contradict each other wins.
pub(crate) fn sort_options<'a>(field: &str, options: impl IntoIterator<Item = &'a str>) -> Result<MountOptions> {
    let mut sorted = MountOptions::default();
    for option in options {
        // Some tools put several into one string.
        for word in option.split(',').filter(|w| !w.is_empty()) {
            sort_word(field, word, &mut sorted)?;
        }
    }
    Ok(sorted)
}

fn sort_word(field: &str, word: &str, sorted: &mut MountOptions) -> Result<()> {
    if let Some(attribute) = attribute(word) {
        apply(&mut sorted.attr, attribute);
    } else if let Some((propagation, depth)) = propagation(word) {
        match depth {
            Depth::Mount => sorted.attr.propagation = Some(propagation),
            Depth::Tree => sorted.tree_attr.propagation = Some(propagation),
        }
    } else if let Some(recursive) = word.strip_prefix('r').and_then(attribute) {
        apply(&mut sorted.tree_attr, recursive);
    } else {
        match word {
            "bind" => sorted.bind = Some(Depth::Mount),
            "rbind" => sorted.bind = Some(Depth::Tree),
            "defaults" | "silent" | "loud" | "noiversion" | "iversion" | "nomand" | "async" | "nolazytime" | "acl" => {
                apply(&mut sorted.attr, Word::Nothing)
            }
            "remount" | "idmap" | "ridmap" | "tmpcopyup" => {
                return Err(unsupported(field, format!("mount option '{word}'")));
            }
            _ => sorted.params.push(param(field, word)?),
        }
    }
    Ok(())
}

fn param(field: &str, word: &str) -> Result<FsParam> {
    Ok(match word.split_once('=') {
        Some((key, value)) => FsParam {
            key: cstring(field, key)?,
            value: Some(cstring(field, value)?),
        },
        None => FsParam {
            key: cstring(field, word)?,
            value: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(options: &[&str]) -> MountOptions {
        sort_options("mounts[0].options", options.iter().copied()).expect("valid options")
    }

    #[test]
    fn the_last_of_two_opposites_wins() {
        assert_eq!(sorted(&["ro", "rw"]).attr.set, MountAttr::empty());
        assert_eq!(sorted(&["rw", "ro"]).attr.set, MountAttr::RDONLY);
        assert_eq!(sorted(&["noatime", "strictatime"]).attr.set, MountAttr::STRICTATIME);
    }

    #[test]
    fn recursive_attributes_are_for_the_tree_and_filesystem_options_are_left_over() {
        let options = sorted(&["rbind", "rro", "rslave", "size=64k", "mode=755"]);
        assert_eq!(options.bind, Some(Depth::Tree));
        assert_eq!(options.tree_attr.set, MountAttr::RDONLY);
        assert_eq!(options.tree_attr.propagation, Some(Propagation::Slave));
        assert_eq!(options.attr, AttrChange::default());
        assert_eq!(options.params.len(), 2);
    }

    #[test]
    fn relatime_is_not_read_as_a_recursive_attribute() {
        let options = sorted(&["relatime"]);
        assert_eq!(options.attr.clear, MountAttr::ATIME);
        assert!(options.tree_attr.is_empty());
    }
}
