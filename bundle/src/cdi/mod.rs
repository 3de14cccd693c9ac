//! Devices by name: the Container Device Interface, by which vendors tell what a container needs to use a device of theirs.

mod document;
mod edits;
mod name;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::{Error, Result, from_json};
use document::Document;

pub use edits::CdiEdits;
pub use name::CdiName;

/// Where specifications are looked for, the later before the earlier.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// A longer file is refused, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// The devices that this machine's CDI specifications describe (Container Device Interface, versions 0.3.0 to 1.1.0).
///
/// ```
/// use longshore_bundle::{Cdi, NoFiles, SpecBuilder};
///
/// # let directory = tempfile::tempdir()?;
/// # std::fs::write(directory.path().join("acme.json"), r#"{"cdiVersion": "0.6.0", "kind": "acme.example/pump", "devices": [
/// #     {"name": "left", "containerEdits": {"env": ["PUMP=left"], "deviceNodes": [{"path": "/dev/pump0", "hostPath": "/dev/zero"}]}}]}"#)?;
/// # let directory = directory.path();
/// // `Cdi::of_host()` reads /etc/cdi and /var/run/cdi.
/// let cdi = Cdi::read([directory])?;
/// let edits = cdi.resolve(["acme.example/pump=left"])?;
/// let spec = SpecBuilder::without_image().args(["run"]).with_cdi(edits).build(&NoFiles)?;
/// let nodes = spec.linux().as_ref().and_then(|linux| linux.devices().clone()).unwrap_or_default();
/// assert_eq!(nodes[0].path(), std::path::Path::new("/dev/pump0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What holds
/// - A file is a specification when its name ends in `.json` or `.yaml`. YAML is read only as far as it is JSON, which is YAML too.
/// - Of a device that several directories describe, the last directory's is taken. One that two files of the same directory describe is nobody's: asking for it is an error.
/// - A file that is wrong is passed over, so that it does not take the others' devices away. [`problems`](Self::problems) tells of it, and so does the error of who asks for a device that is not there.
#[derive(Clone, Debug, Default)]
pub struct Cdi {
    documents: Vec<Document>,
    devices: BTreeMap<CdiName, Found>,
    problems: Vec<Problem>,
}

/// Who describes a device.
#[derive(Clone, Debug)]
enum Found {
    /// A device of a document, by their places.
    At { document: usize, device: usize },
    /// Several files of one directory.
    Several(Vec<PathBuf>),
}

#[derive(Clone, Debug)]
struct Problem {
    path: PathBuf,
    reason: String,
}

impl Cdi {
    /// Reads this machine's specifications, in `/etc/cdi` and `/var/run/cdi`. Blocks on disk.
    ///
    /// # Errors
    /// When a directory that is there can't be read.
    pub fn of_host() -> Result<Self> {
        Self::read(DIRECTORIES)
    }

    /// Reads the specifications in other directories; one that is not there is empty. Blocks on disk.
    ///
    /// # Errors
    /// When a directory that is there can't be read.
    pub fn read<P: AsRef<Path>>(directories: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut cdi = Self::default();
        for directory in directories {
            cdi.add_directory(directory.as_ref())?;
        }
        Ok(cdi)
    }

    /// The devices that can be had, in order.
    pub fn devices(&self) -> impl Iterator<Item = &CdiName> {
        let single = |(name, found): (_, &Found)| matches!(found, Found::At { .. }).then_some(name);
        self.devices.iter().filter_map(single)
    }

    /// What is wrong with files that were passed over.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.iter();
        problems
            .map(|problem| format!("{}: {}", problem.path.display(), problem.reason))
            .collect()
    }

    /// What containers need that get these devices, by their whole names: what each one's specification says of all its devices, once, and of this one, in their order.
    /// Device nodes are looked at on this machine where the specification leaves out what they are.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for what is no name; [`NotFound`](crate::ErrorKind::NotFound) for a device that is not described, or by several files; what looking at device nodes fails with.
    pub fn resolve<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Result<CdiEdits> {
        let mut edits = CdiEdits::default();
        let mut general = HashSet::new();
        for name in names {
            let name: CdiName = name.as_ref().parse()?;
            let (index, device) = match self.devices.get(&name) {
                Some(Found::At { document, device }) => (*document, *device),
                Some(Found::Several(paths)) => return Err(self.conflict(&name, paths)),
                None => return Err(self.missing(&name)),
            };
            let document = &self.documents[index];
            if general.insert(index) {
                edits.append(&document.container_edits)?;
            }
            edits.append(&document.devices[device].container_edits)?;
        }
        Ok(edits)
    }

    fn conflict(&self, name: &CdiName, paths: &[PathBuf]) -> Error {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        Error::CdiDevice {
            name: name.to_string(),
            reason: format!("{} describe it; take it out of all but one", paths.join(" and ")),
        }
    }

    fn missing(&self, name: &CdiName) -> Error {
        let mut reason = match self.devices().next() {
            None => "there is no CDI specification here".to_owned(),
            Some(_) => {
                let known: Vec<String> = self.devices().map(CdiName::to_string).collect();
                format!("no CDI specification describes it; there are {}", known.join(", "))
            }
        };
        for problem in self.problems() {
            reason.push_str("; passed over ");
            reason.push_str(&problem);
        }
        Error::CdiDevice {
            name: name.to_string(),
            reason,
        }
    }

    fn add_directory(&mut self, directory: &Path) -> Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("reading", directory)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("reading", directory))?.path();
            let is_one = path.extension().is_some_and(|end| end == "json" || end == "yaml");
            if is_one && !path.is_dir() {
                paths.push(path);
            }
        }
        paths.sort();
        let mut here: BTreeMap<CdiName, Found> = BTreeMap::new();
        for path in paths {
            match read(&path) {
                Ok(document) => self.add(document, path, &mut here),
                Err(reason) => self.problems.push(Problem { path, reason }),
            }
        }
        self.devices.append(&mut here);
        Ok(())
    }

    fn add(&mut self, mut document: Document, path: PathBuf, here: &mut BTreeMap<CdiName, Found>) {
        let index = self.documents.len();
        for (device, name) in document.names().into_iter().enumerate() {
            let found = match here.remove(&name) {
                None => Found::At {
                    document: index,
                    device,
                },
                Some(Found::At { document, .. }) => {
                    Found::Several(vec![self.documents[document].path.clone(), path.clone()])
                }
                Some(Found::Several(mut paths)) => {
                    paths.push(path.clone());
                    Found::Several(paths)
                }
            };
            here.insert(name, found);
        }
        document.path = path;
        self.documents.push(document);
    }
}

/// Reads one specification, or says what is wrong with it.
fn read(path: &Path) -> Result<Document, String> {
    let said = |error: std::io::Error| format!("it can't be read ({error})");
    // A pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| said(error.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(said)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(format!("it is longer than {FILE_LIMIT} bytes"));
    }
    let is_yaml = path.extension().is_some_and(|end| end == "yaml") && !bytes.trim_ascii_start().starts_with(b"{");
    if is_yaml {
        return Err(
            "it is YAML, which is not read here; write it as JSON (`nvidia-ctk cdi generate --format=json`)".into(),
        );
    }
    let document: Document = from_json(&bytes).map_err(|error| format!("line {}: {error}", error.line))?;
    document.check()?;
    Ok(document)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
