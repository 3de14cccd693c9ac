//! The image that is pulled, written straight into the storage of docker-registry.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

pub(crate) const REPOSITORY: &str = "bench";
pub(crate) const TAG: &str = "latest";

/// Files of the whole image, and their bytes in the mean.
const FILES: usize = 70_000;
const MEAN: usize = 22_000;
/// What each layer has of them, in hundredths.
const LAYERS: [usize; 5] = [30, 25, 20, 15, 10];
/// Files of a directory.
const A_DIRECTORY: usize = 12;
/// Contents are cut from so many bytes: many times the window of gzip, which so never sees a cut twice.
const POOL: usize = 64 << 20;

/// What was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// The layers' blobs.
    pub(crate) layers: Vec<PathBuf>,
    files: usize,
    packed: u64,
    unpacked: u64,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes / 1_000_000;
        let (layers, packed, unpacked) = (self.layers.len(), mb(self.packed), mb(self.unpacked));
        write!(
            f,
            "{layers} layers, {} files, {packed} MB compressed, {unpacked} MB unpacked",
            self.files
        )
    }
}

/// A layer as it was made.
struct Layer {
    digest: String,
    diff_id: String,
    packed: u64,
    unpacked: u64,
    files: usize,
}

/// Makes `percent` of the image.
pub(crate) fn make(storage: &Path, percent: usize) -> Made {
    let pool = pool();
    let make = |number: usize| {
        let files = FILES * percent / 100 * LAYERS[number] / 100;
        layer(storage, &pool, number, files)
    };
    // In two halves of about the same size.
    let layers: Vec<Layer> = std::thread::scope(|scope| {
        let one = scope.spawn(|| [0, 2].map(make));
        let [b, d, e] = [1, 3, 4].map(make);
        let [a, c] = one.join().expect("no layer fails");
        vec![a, b, c, d, e]
    });
    register(storage, &layers);
    Made {
        layers: layers.iter().map(|layer| blob(storage, &layer.digest)).collect(),
        files: layers.iter().map(|layer| layer.files).sum(),
        packed: layers.iter().map(|layer| layer.packed).sum(),
        unpacked: layers.iter().map(|layer| layer.unpacked).sum(),
    }
}

/// xorshift64*: the same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Lines of words, some of them rare, with stretches of noise between: gzip makes about a quarter of it, as it does of a distribution's files.
fn pool() -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| {
            (0..3 + random.below(8))
                .map(|_| b"etaoinshrdlucmfwypvbgk"[random.below(22)])
                .collect()
        })
        .collect();
    let mut pool = Vec::with_capacity(POOL + 4096);
    while pool.len() < POOL {
        if random.below(1000) == 0 {
            pool.extend((0..512).map(|_| random.next() as u8));
        }
        // A product is small more often than not.
        let word: usize = (0..4).map(|_| random.below(8)).product();
        pool.extend_from_slice(&words[word]);
        pool.push(if random.below(9) == 0 { b'\n' } else { b' ' });
    }
    pool.truncate(POOL);
    pool
}

/// A layer of gzip in the storage.
fn layer(storage: &Path, pool: &[u8], number: usize, files: usize) -> Layer {
    let part = storage.join(format!("part-{number}"));
    let out = Hashed::new(BufWriter::with_capacity(1 << 20, File::create(&part).expect("a file")));
    let tar = fill(
        pool,
        number,
        files,
        Hashed::new(GzEncoder::new(out, flate2::Compression::default())),
    );
    let (diff_id, unpacked, gzip) = tar.expect("memory takes it").finish();
    let (digest, packed, mut file) = gzip.finish().expect("memory takes it").finish();
    file.flush().expect("memory takes it");
    put(storage, &digest, |path| std::fs::rename(&part, path).expect("renamed"));
    Layer {
        digest,
        diff_id,
        packed,
        unpacked,
        files,
    }
}

/// The archive of a layer: its own directories, and some files in those of the layer below.
fn fill<W: Write>(pool: &[u8], number: usize, files: usize, out: W) -> io::Result<W> {
    let mut random = Random(0x1234_5678 + number as u64);
    let mut tar = tar::Builder::new(out);
    let mut directory = String::new();
    for file in 0..files {
        if file % A_DIRECTORY == 0 {
            // Every twentieth is one that the layer below has, too.
            let of = if file % (20 * A_DIRECTORY) == 0 {
                number.saturating_sub(1)
            } else {
                number
            };
            directory = format!("usr/lib/part-{of}/section-{}/unit-{file}", file / 1000);
            let mut header = header(tar::EntryType::Directory, 0, 0o755, file);
            tar.append_data(&mut header, format!("{directory}/"), io::empty())?;
        }
        let name = format!("{directory}/file-{file}.so");
        if file % 50 == 49 {
            let mut header = header(tar::EntryType::Symlink, 0, 0o777, file);
            tar.append_link(&mut header, name, format!("file-{}.so", file - 1))?;
            continue;
        }
        let size = size(&mut random);
        let start = random.below(POOL - size);
        let mode = if file % 10 == 0 { 0o755 } else { 0o644 };
        let mut header = header(tar::EntryType::Regular, size, mode, file);
        tar.append_data(&mut header, name, &pool[start..start + size])?;
    }
    tar.into_inner()
}

/// Most files are small, and a few large ones have half of the bytes.
fn size(random: &mut Random) -> usize {
    match random.below(100) {
        0..=69 => random.below(MEAN / 3),
        70..=97 => random.below(MEAN * 2),
        _ => MEAN * 5 + random.below(MEAN * 50),
    }
}

fn header(kind: tar::EntryType, size: usize, mode: u32, file: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    // A few are an ordinary user's.
    let owner = if file % 20 == 7 { 1000 } else { 0 };
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_700_000_000 + file as u64);
    header
}

/// Config, manifest and tag, as docker-registry keeps them.
fn register(storage: &Path, layers: &[Layer]) {
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}
    });
    let descriptor = |kind: &str, digest: &str, size: u64| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let config = config.to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &sha256(config.as_bytes()), config.len() as u64),
        "layers": layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", &layer.digest, layer.packed)).collect::<Vec<_>>(),
    })
    .to_string();
    for text in [&config, &manifest] {
        put(storage, &sha256(text.as_bytes()), |path| {
            std::fs::write(path, text).expect("written")
        });
    }
    let repository = storage.join("docker/registry/v2/repositories").join(REPOSITORY);
    let link = |name: String, digest: &str| {
        let folder = repository.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("link"), digest).expect("written");
    };
    let path = |digest: &str| digest.replace(':', "/");
    let blobs = layers
        .iter()
        .map(|layer| layer.digest.clone())
        .chain([sha256(config.as_bytes())]);
    for blob in blobs {
        link(format!("_layers/{}", path(&blob)), &blob);
    }
    let digest = sha256(manifest.as_bytes());
    link(format!("_manifests/revisions/{}", path(&digest)), &digest);
    link(format!("_manifests/tags/{TAG}/current"), &digest);
    link(format!("_manifests/tags/{TAG}/index/{}", path(&digest)), &digest);
}

fn blob(storage: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    storage.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
}

fn put(storage: &Path, digest: &str, write: impl FnOnce(&Path)) {
    let path = blob(storage, digest);
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
    write(&path);
}

fn sha256(bytes: &[u8]) -> String {
    named(Sha256::digest(bytes).as_slice())
}

fn named(hash: &[u8]) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Hashes and counts what goes through it.
struct Hashed<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            size: 0,
        }
    }

    fn finish(self) -> (String, u64, W) {
        (named(self.hash.finalize().as_slice()), self.size, self.out)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hash.update(&bytes[..len]);
        self.size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
