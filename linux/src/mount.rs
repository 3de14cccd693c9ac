use std::path::{Path, PathBuf};

/// A filesystem mount, as a value: what to mount, not yet where.
///
/// The shape is containerd's `Mount` and fits mount(8): a snapshotter returns a list of them, the executor performs
/// them inside the container's mount namespace. The target is the root being assembled unless
/// [`target`](Self::target) names a directory inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Filesystem type (`overlay`, `bind`, `tmpfs`, ...).
    pub fs_type: String,
    /// Device, directory or name that is mounted.
    pub source: PathBuf,
    /// Directory inside the root being assembled; `None` is the root itself.
    pub target: Option<PathBuf>,
    /// Options as in fstab(5): flags (`ro`, `rbind`) and the filesystem's own (`lowerdir=...`).
    pub options: Vec<String>,
}

impl Mount {
    /// A recursive bind mount of `source`, writable unless `options` says `ro`.
    pub fn bind(source: impl Into<PathBuf>) -> Self {
        Self {
            fs_type: "bind".into(),
            source: source.into(),
            target: None,
            options: vec!["rbind".into()],
        }
    }

    /// The same mount with one more option.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Whether the mount is asked to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }

    /// The value of `key=value` among the options, the last one winning as in mount(8).
    pub fn value_of(&self, key: &str) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find_map(|o| o.strip_prefix(key)?.strip_prefix('='))
    }

    /// The lower directories of an overlay, the topmost first: those in `lowerdir`, between colons, with a backslash that takes the meaning of the next
    /// character away, and those in `lowerdir+`, one each.
    pub fn lower_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = Vec::new();
        for option in &self.options {
            if let Some(one) = option.strip_prefix("lowerdir+=") {
                dirs.push(PathBuf::from(one));
            } else if let Some(list) = option.strip_prefix("lowerdir=") {
                dirs.extend(split_dirs(list));
            }
        }
        dirs
    }

    /// The same overlay with its lower directories named from the one that they all are in, and that directory, for who mounts by mount(2) or mount(8): the
    /// options must fit into a page then, and the names of 500 layers do from there. The mount must be made by a process, or a thread that shares its
    /// working directory with no other, that is in that directory. `None` for what is no overlay, and for one whose layers have no
    /// directory in common.
    ///
    /// ```
    /// # use longshore_linux::Mount;
    /// let overlay = Mount { fs_type: "overlay".into(), source: "overlay".into(), ..Mount::default() };
    /// let (dir, short) = overlay.option("lowerdir=/s/l/b:/s/l/a").option("ro").in_common_dir().unwrap();
    /// assert_eq!(dir, std::path::Path::new("/s/l"));
    /// assert_eq!(short.options, ["lowerdir=b:a", "ro"]);
    /// ```
    pub fn in_common_dir(&self) -> Option<(PathBuf, Self)> {
        let dirs = self.lower_dirs();
        if self.fs_type != "overlay" {
            return None;
        }
        let mut common: &Path = dirs.first()?.parent()?;
        for dir in &dirs {
            while !dir.parent()?.starts_with(common) {
                common = common.parent()?;
            }
        }
        let names: Option<Vec<String>> = dirs
            .iter()
            .map(|dir| Some(escape(dir.strip_prefix(common).ok()?.to_str()?)))
            .collect();
        let mut names = Some(format!("lowerdir={}", names?.join(":")));
        let mut mount = Self {
            options: Vec::new(),
            ..self.clone()
        };
        for option in &self.options {
            match option.starts_with("lowerdir=") || option.starts_with("lowerdir+=") {
                true => mount.options.extend(names.take()),
                false => mount.options.push(option.clone()),
            }
        }
        Some((common.to_owned(), mount))
    }
}

/// Directories between colons; a backslash takes the next character as it is.
fn split_dirs(list: &str) -> Vec<PathBuf> {
    let mut dirs = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let last = dirs.last_mut().expect("there is always one");
        match c {
            '\\' => last.extend(chars.next()),
            ':' => dirs.push(String::new()),
            c => last.push(c),
        }
    }
    dirs.retain(|dir| !dir.is_empty());
    dirs.into_iter().map(PathBuf::from).collect()
}

/// A directory as it stands in the option.
fn escape(dir: &str) -> String {
    let mut text = String::new();
    for c in dir.chars() {
        if matches!(c, ':' | ',' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> Mount {
        Mount {
            fs_type: "overlay".into(),
            source: "overlay".into(),
            target: None,
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn lower_directories_in_every_form() {
        let dirs = overlay(&["lowerdir=/a:/b\\:c::", "lowerdir+=/d:e", "upperdir=/u"]).lower_dirs();
        assert_eq!(dirs, ["/a", "/b:c", "/d:e"].map(PathBuf::from));
        assert!(Mount::bind("/a").lower_dirs().is_empty());
    }

    #[test]
    fn names_from_the_common_directory() {
        let of = |options: &[&str]| {
            let (dir, mount) = overlay(options).in_common_dir()?;
            Some((dir.to_str()?.to_owned(), mount.options.join(",")))
        };
        let is = |dir: &str, options: &str| Some((dir.to_owned(), options.to_owned()));
        assert_eq!(
            of(&["ro", "lowerdir=/s/12/fs:/s/1/fs"]),
            is("/s", "ro,lowerdir=12/fs:1/fs")
        );
        assert_eq!(of(&["lowerdir=/s/a:/s/a/b"]), is("/s", "lowerdir=a:a/b"));
        assert_eq!(
            of(&["lowerdir=/s/x\\:y\\,z", "upperdir=/u"]),
            is("/s", "lowerdir=x\\:y\\,z,upperdir=/u")
        );
        assert_eq!(of(&["lowerdir+=/s/b", "lowerdir+=/s/a"]), is("/s", "lowerdir=b:a"));
        assert_eq!(of(&["lowerdir=/a:/b"]), is("/", "lowerdir=a:b"));
        assert_eq!(of(&["lowerdir=/:/b"]), None);
        assert_eq!(of(&["ro"]), None);
        assert_eq!(Mount::bind("/a").in_common_dir(), None);
    }
}
