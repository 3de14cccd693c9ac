//! A small image made from this machine's own programs: a shell and a few tools, with the libraries that they load, found by
//! reading their ELF headers. It lets a demonstration run with no network and nothing to install.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, PT_INTERP};
use elf::endian::AnyEndian;
use flate2::{Compression, write::GzEncoder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, Digest, ImageConfigurationBuilder, ImageManifest, ImageManifestBuilder, MediaType,
    Os, RootFsBuilder, SCHEMA_VERSION,
};
use sha2::{Digest as _, Sha256};

/// Tools that go into the image where this machine has them; `sh` is a must.
const TOOLS: &[&str] = &[
    "cat", "date", "echo", "env", "head", "id", "ls", "mkdir", "ps", "sleep", "uname", "wc",
];

/// Libraries that programs open by name at run time, so that no ELF header tells of them.
const LOADED_LATER: &[&str] = &["libnss_files.so.2"];

/// An image in memory.
#[derive(Debug)]
pub struct HostImage {
    /// Config and layers: descriptor and bytes.
    pub blobs: Vec<(Descriptor, Bytes)>,
    /// The manifest and its bytes.
    pub manifest: (Descriptor, Bytes),
}

/// Makes the image: one layer with the shell and its libraries, one with the tools and theirs.
///
/// # Errors
/// When this machine has no `sh`, or a library that a program names can't be found.
pub fn build() -> Result<HostImage> {
    let search = SearchPath::of_host();
    let mut done = BTreeSet::new();
    let shell = find_program("sh").context("this machine has no `sh` in /bin or /usr/bin")?;
    let mut base = Files::default();
    base.add_skeleton();
    base.add_program("sh", &shell, &search, &mut done)?;
    for name in LOADED_LATER {
        if let Some(path) = search.find(name, &[]) {
            base.add_library(&path, &search, &mut done)?;
        }
    }
    let mut tools = Files::default();
    for name in TOOLS {
        if let Some(path) = find_program(name) {
            tools.add_program(name, &path, &search, &mut done)?;
        }
    }
    assemble(&[base, tools])
}

/// Layers, config and manifest of an image whose layers hold these files.
fn assemble(layers: &[Files]) -> Result<HostImage> {
    let mut blobs = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let (diff_id, bytes) = layer.to_layer()?;
        diff_ids.push(diff_id);
        blobs.push(blob(MediaType::ImageLayerGzip, bytes)?);
    }
    let process = ConfigBuilder::default()
        .env(vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()])
        .cmd(vec!["/bin/sh".to_owned()])
        .working_dir("/".to_owned())
        .build()?;
    let config = ImageConfigurationBuilder::default()
        .architecture(Arch::default())
        .os(Os::default())
        .config(process)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers".to_owned())
                .diff_ids(diff_ids)
                .build()?,
        )
        .history(Vec::new())
        .build()?;
    let config = blob(MediaType::ImageConfig, serde_json::to_vec(&config)?)?;
    let manifest: ImageManifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config.0.clone())
        .layers(
            blobs
                .iter()
                .map(|(descriptor, _)| descriptor.clone())
                .collect::<Vec<_>>(),
        )
        .build()?;
    blobs.push(config);
    Ok(HostImage {
        blobs,
        manifest: blob(MediaType::ImageManifest, serde_json::to_vec(&manifest)?)?,
    })
}

fn blob(media_type: MediaType, bytes: Vec<u8>) -> Result<(Descriptor, Bytes)> {
    let digest: Digest = sha256(&bytes).parse()?;
    Ok((Descriptor::new(media_type, bytes.len() as u64, digest), bytes.into()))
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The files of one layer, by their path in the image.
#[derive(Default)]
struct Files {
    entries: BTreeMap<PathBuf, Entry>,
}

enum Entry {
    Directory(u32),
    Text(&'static str),
    Copy(PathBuf),
}

impl Files {
    fn add_skeleton(&mut self) {
        for dir in [
            "bin", "dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "var",
        ] {
            self.entries.insert(dir.into(), Entry::Directory(0o755));
        }
        self.entries.insert("tmp".into(), Entry::Directory(0o1777));
        self.entries
            .insert("etc/passwd".into(), Entry::Text("root:x:0:0:root:/root:/bin/sh\n"));
        self.entries.insert("etc/group".into(), Entry::Text("root:x:0:\n"));
        self.entries.insert(
            "etc/os-release".into(),
            Entry::Text("ID=longshore\nNAME=\"made from this host\"\n"),
        );
    }

    /// A program under `/bin`, with all that it loads.
    fn add_program(
        &mut self,
        name: &str,
        path: &Path,
        search: &SearchPath,
        done: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        self.entries
            .insert(Path::new("bin").join(name), Entry::Copy(path.to_owned()));
        self.add_needs(path, search, done)
    }

    /// A library where the loader looks for it, with all that it loads.
    fn add_library(&mut self, path: &Path, search: &SearchPath, done: &mut BTreeSet<PathBuf>) -> Result<()> {
        if done.insert(path.to_owned()) {
            let inside = path.strip_prefix("/").context("a library's path is not absolute")?;
            self.entries.insert(inside.to_owned(), Entry::Copy(path.to_owned()));
            self.add_needs(path, search, done)?;
        }
        Ok(())
    }

    fn add_needs(&mut self, path: &Path, search: &SearchPath, done: &mut BTreeSet<PathBuf>) -> Result<()> {
        let needs = Needs::of(path).with_context(|| format!("reading the ELF header of {}", path.display()))?;
        if let Some(interpreter) = &needs.interpreter {
            self.add_library(interpreter, search, done)?;
        }
        for name in &needs.libraries {
            let library = search
                .find(name, &needs.run_path)
                .with_context(|| format!("{} needs {name}, which is in no library folder", path.display()))?;
            self.add_library(&library, search, done)?;
        }
        Ok(())
    }

    /// The layer as a tar, compressed; with the digest of the uncompressed bytes.
    fn to_layer(&self) -> Result<(String, Vec<u8>)> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut seen = BTreeSet::new();
        for (path, entry) in &self.entries {
            for parent in path
                .ancestors()
                .skip(1)
                .filter(|p| !p.as_os_str().is_empty())
                .collect::<Vec<_>>()
                .iter()
                .rev()
            {
                if !self.entries.contains_key(*parent) && seen.insert(parent.to_path_buf()) {
                    append(&mut tar, parent, tar::EntryType::Directory, 0o755, &[])?;
                }
            }
            match entry {
                Entry::Directory(mode) => append(&mut tar, path, tar::EntryType::Directory, *mode, &[])?,
                Entry::Text(text) => append(&mut tar, path, tar::EntryType::Regular, 0o644, text.as_bytes())?,
                Entry::Copy(from) => {
                    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
                    append(&mut tar, path, tar::EntryType::Regular, 0o755, &bytes)?;
                }
            }
        }
        let tar = tar.into_inner()?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        Ok((sha256(&tar), gzip.finish()?))
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &Path, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

/// What an ELF file names of other files.
#[derive(Default)]
struct Needs {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    run_path: Vec<PathBuf>,
}

impl Needs {
    fn of(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)?;
        if !bytes.starts_with(b"\x7fELF") {
            bail!("it is not an ELF program");
        }
        let file = ElfBytes::<AnyEndian>::minimal_parse(&bytes)?;
        let mut needs = Self::default();
        for segment in file
            .segments()
            .into_iter()
            .flatten()
            .filter(|segment| segment.p_type == PT_INTERP)
        {
            let name = file
                .segment_data(&segment)?
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            needs.interpreter = Some(std::str::from_utf8(name)?.into());
        }
        let (Some(dynamic), Some((_, strings))) = (file.dynamic()?, file.dynamic_symbol_table()?) else {
            return Ok(needs);
        };
        let origin = path.parent().unwrap_or(Path::new("/")).to_string_lossy();
        for entry in dynamic {
            let text = |offset: u64| -> Result<&str> { Ok(strings.get(usize::try_from(offset)?)?) };
            match entry.d_tag {
                DT_NEEDED => needs.libraries.push(text(entry.d_val())?.to_owned()),
                DT_RPATH | DT_RUNPATH => {
                    needs.run_path.extend(
                        text(entry.d_val())?
                            .split(':')
                            .map(|dir| PathBuf::from(dir.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin))),
                    );
                }
                _ => {}
            }
        }
        Ok(needs)
    }
}

/// Where this machine's loader looks for libraries.
struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// The folders of `/etc/ld.so.conf` and those that loaders look into anyway.
    fn of_host() -> Self {
        let mut folders = Vec::new();
        let mut files = VecDeque::from([PathBuf::from("/etc/ld.so.conf")]);
        if let Ok(included) = fs::read_dir("/etc/ld.so.conf.d") {
            let mut included: Vec<_> = included.flatten().map(|entry| entry.path()).collect();
            included.sort();
            files.extend(included);
        }
        for file in files {
            let text = fs::read_to_string(file).unwrap_or_default();
            folders.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| line.starts_with('/'))
                    .map(PathBuf::from),
            );
        }
        folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
        Self(folders)
    }

    fn find(&self, name: &str, first: &[PathBuf]) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(name.into());
        }
        first
            .iter()
            .chain(&self.0)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    ["/bin", "/usr/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_holds_the_shell_its_loader_and_its_libraries() {
        let image = build().expect("an image of this host");
        assert_eq!(image.blobs.len(), 3, "two layers and a config");
        let (_, layer) = &image.blobs[0];
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&layer[..]));
        let names: Vec<PathBuf> = tar
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().into_owned())
            .collect();
        assert!(names.contains(&"bin/sh".into()));
        let needs = Needs::of(&find_program("sh").unwrap()).unwrap();
        for path in needs.interpreter.iter().map(|path| path.strip_prefix("/").unwrap()) {
            assert!(
                names.contains(&path.to_owned()),
                "{} is missing from {names:?}",
                path.display()
            );
        }
        for name in needs.libraries {
            assert!(
                names.iter().any(|path| path.ends_with(&name)),
                "{name} is missing from {names:?}"
            );
        }
    }
}
