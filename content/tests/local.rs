//! What only a store on disk can get wrong: crashes, full disks, strangers' files, other processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use longshore_content::{
    ContentStore, ContentStoreExt, Error, ErrorKind, Expected, Fault, Info, Ingest, IngestRequest, LocalStore,
    MemoryStore, Subject, Verifier, repair, sha256,
};
use oci_spec::image::Digest;
use tempfile::TempDir;

const ROOT: &str = "LONGSHORE_TEST_ROOT";

/// The bytes of a large blob, piece by piece; the same in each process.
fn piece(number: usize) -> Bytes {
    let seed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Cheap to make without optimisation, and of a period that divides nothing.
    let block: Vec<u8> = (0..4099u64)
        .map(|n| (seed.wrapping_mul(n * n + 1) >> 40) as u8)
        .collect();
    let mut bytes = block.repeat(PIECE / block.len() + 1);
    bytes.truncate(PIECE);
    bytes.into()
}

const PIECE: usize = 1 << 20;
const PIECES: usize = 48;

fn whole() -> Bytes {
    (0..PIECES).map(piece).collect::<Vec<_>>().concat().into()
}

fn promise(data: &[u8]) -> Expected {
    Expected {
        digest: Some(sha256(data)),
        size: Some(data.len() as u64),
    }
}

async fn begin(store: &LocalStore, reference: &str, data: &[u8]) -> Box<dyn Ingest> {
    store
        .ingest(IngestRequest {
            reference: reference.into(),
            expected: promise(data),
        })
        .await
        .unwrap()
}

async fn fresh() -> (TempDir, LocalStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path().join("store")).await.unwrap();
    (directory, store)
}

/// An ingest of 1000 bytes of which 400 came before its writer was dropped, and its directory.
async fn left_over(store: &LocalStore) -> (Bytes, PathBuf) {
    let data = piece(0).slice(..1000);
    begin(store, "a", &data).await.write(data.slice(..400)).await.unwrap();
    store.settle().await;
    let directory = fs::read_dir(store.root().join("ingest"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    (data, directory)
}

async fn offset(store: &LocalStore) -> u64 {
    store.status("a").await.unwrap().offset
}

async fn go_on(store: &LocalStore, data: &Bytes) -> Result<Info, Error> {
    let mut ingest = begin(store, "a", data).await;
    let offset = ingest.status().offset as usize;
    ingest.write(data.slice(offset..)).await?;
    ingest.commit(Expected::default()).await
}

// ---- Layout

#[tokio::test]
async fn the_directory_is_an_oci_layout() {
    let (_directory, store) = fresh().await;
    let data = piece(0);
    let digest = store.put("a", data.clone(), promise(&data)).await.unwrap().digest;
    let read = |name: &str| fs::read_to_string(store.root().join(name)).unwrap();
    assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value = serde_json::from_str(&read("index.json")).unwrap();
    assert_eq!(
        (
            index["schemaVersion"].as_u64(),
            index["manifests"].as_array().map(Vec::len)
        ),
        (Some(2), Some(0))
    );
    assert_eq!(
        fs::read(store.root().join("blobs/sha256").join(digest.digest())).unwrap(),
        data
    );
    assert_eq!(fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_index_that_is_there_is_kept() {
    let (_directory, store) = fresh().await;
    let index = store.root().join("index.json");
    fs::write(&index, "mine").unwrap();
    LocalStore::open(store.root()).await.unwrap();
    assert_eq!(fs::read_to_string(index).unwrap(), "mine");
}

#[tokio::test]
async fn another_layout_is_refused() {
    let (_directory, store) = fresh().await;
    for text in [r#"{"imageLayoutVersion":"2.0.0"}"#, "nonsense"] {
        fs::write(store.root().join("oci-layout"), text).unwrap();
        let error = LocalStore::open(store.root()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("oci-layout"), "{error}");
    }
}

#[tokio::test]
async fn a_file_in_place_of_the_root_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "").unwrap();
    let error = LocalStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn files_of_strangers_are_let_alone() {
    let (_directory, store) = fresh().await;
    let data = piece(0);
    let digest = store.put("a", data.clone(), promise(&data)).await.unwrap().digest;
    let hex = sha256(b"other");
    let hex = hex.digest();
    let strange = [
        "blobs/README",
        "blobs/md5/x",
        "blobs/sha256/x",
        "ingest/file",
        "ingest/directory/file",
        "blobs/sha256/.tmp",
    ];
    for name in strange {
        let path = store.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "strange").unwrap();
    }
    fs::create_dir(store.root().join("blobs/sha512")).unwrap();
    fs::create_dir(store.root().join("blobs/sha512").join("0".repeat(128))).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", store.root().join("blobs/sha256").join(hex)).unwrap();

    let store = LocalStore::open(store.root()).await.unwrap();
    let walked: Vec<_> = store.walk().map(|info| info.unwrap().digest).collect().await;
    assert_eq!(walked, [digest]);
    assert!(store.ingests().await.unwrap().is_empty());
    for digest in [format!("sha256:{hex}"), format!("sha512:{}", "0".repeat(128))] {
        let digest = Digest::try_from(digest).unwrap();
        assert_eq!(store.info(&digest).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            store.open(&digest).await.unwrap_err().kind(),
            ErrorKind::NotFound,
            "{digest}"
        );
    }
    assert!(strange.iter().all(|name| store.root().join(name).exists()));
}

// ---- Damage

#[tokio::test]
async fn damage_is_noticed() {
    let (_directory, store) = fresh().await;
    let data = piece(0);
    let digest = store.put("a", data.clone(), promise(&data)).await.unwrap().digest;
    let path = store.root().join("blobs/sha256").join(digest.digest());
    let mut damaged = data.to_vec();
    damaged[77] ^= 1;
    for bytes in [&damaged[..], &data[..1000], b""] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(
            store.read(&digest, u64::MAX).await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(store.verify(&digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let open = store.open(&digest).await.unwrap();
    fs::write(&path, "").unwrap();
    drop(open);
    fs::write(&path, &data).unwrap();
    let open = store.open(&digest).await.unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10)
        .unwrap();
    assert_eq!(
        open.read_at(500, &mut [0; 10]).await.unwrap_err().kind(),
        ErrorKind::Corrupt,
        "not an early end"
    );
    assert_eq!(
        open.read_at_blocking(500, &mut [0; 10]).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test]
async fn damage_is_found_and_repaired() {
    let (_directory, store) = fresh().await;
    let good = Arc::new(MemoryStore::new());
    let mut paths = Vec::new();
    for number in 0..4 {
        let data = piece(number);
        let digest = store.put("a", data.clone(), promise(&data)).await.unwrap().digest;
        good.put("a", data.clone(), promise(&data)).await.unwrap();
        paths.push(store.root().join("blobs/sha256").join(digest.digest()));
    }
    let mut damaged = piece(0).to_vec();
    damaged[77] ^= 1;
    fs::write(&paths[0], &damaged).unwrap();
    fs::write(&paths[1], &piece(1)[..1000]).unwrap();
    fs::remove_file(&paths[2]).unwrap();

    let needed = (0..4).map(|number| Subject {
        digest: sha256(&piece(number)),
        size: Some(PIECE as u64),
    });
    let found = Verifier::new(&store).these(needed).await;
    let faults: Vec<_> = found.problems.iter().map(|problem| &problem.fault).collect();
    assert!(
        matches!(
            faults[..],
            [
                Fault::Damaged { .. },
                Fault::WrongLength { actual: 1000 },
                Fault::Missing
            ]
        ),
        "{faults:?}"
    );
    // Without anybody to say what should be there, what is damaged is found.
    let all = Verifier::new(&store).all().await.unwrap();
    assert_eq!((all.blobs, all.problems.len()), (3, 2));

    // The damaged bytes stay until the good ones are there.
    let nothing: Arc<dyn ContentStore> = Arc::new(MemoryStore::new());
    let done = repair(&store, found.problems, &nothing).await;
    assert_eq!((done.repaired.len(), done.failed.len()), (0, 3));
    assert_eq!(fs::read(&paths[0]).unwrap(), damaged);
    let good: Arc<dyn ContentStore> = good;
    let done = repair(&store, done.failed.into_iter().map(|(problem, _)| problem), &good).await;
    assert_eq!((done.repaired.len(), done.failed.len()), (3, 0));
    let all = Verifier::new(&store).all().await.unwrap();
    assert_eq!((all.blobs, all.problems.len()), (4, 0));
    assert_eq!(fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

// ---- Crashes

#[tokio::test]
async fn a_resumed_ingest_does_not_hash_again() {
    let (_directory, store) = fresh().await;
    let (data, directory) = left_over(&store).await;
    // Were the bytes read again, the commit would fail.
    let file = fs::File::options().write(true).open(directory.join("data")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"changed", 0).unwrap();
    let digest = go_on(&store, &data).await.unwrap().digest;
    assert_eq!(
        store.verify(&digest).await.unwrap_err().kind(),
        ErrorKind::Corrupt,
        "the test changed the bytes"
    );
}

#[tokio::test]
async fn bytes_behind_the_checkpoint_are_cut_off() {
    let (_directory, store) = fresh().await;
    let (data, directory) = left_over(&store).await;
    fs::File::options()
        .append(true)
        .open(directory.join("data"))
        .unwrap()
        .write_all(b"torn")
        .unwrap();
    let store = LocalStore::open(store.root()).await.unwrap();
    assert_eq!(offset(&store).await, 400);
    let digest = go_on(&store, &data).await.unwrap().digest;
    store.verify(&digest).await.unwrap();
}

#[tokio::test]
async fn without_a_checkpoint_an_ingest_starts_over() {
    type Harm = fn(&Path);
    let harms: [Harm; 5] = [
        |directory| fs::remove_file(directory.join("durable")).unwrap(),
        |directory| fs::write(directory.join("durable"), "nonsense").unwrap(),
        |directory| fs::write(directory.join("durable"), "").unwrap(),
        |directory| {
            fs::File::options()
                .write(true)
                .open(directory.join("data"))
                .unwrap()
                .set_len(399)
                .unwrap()
        },
        |directory| {
            let text = fs::read_to_string(directory.join("durable")).unwrap();
            fs::write(directory.join("durable"), text.replace(r#""hash":""#, r#""hash":"00"#)).unwrap();
        },
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        let (_directory, store) = fresh().await;
        let (data, directory) = left_over(&store).await;
        harm(&directory);
        let store = LocalStore::open(store.root()).await.unwrap();
        assert_eq!(offset(&store).await, 0, "harm {number}");
        let digest = go_on(&store, &data).await.unwrap().digest;
        store.verify(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_forgets_the_checkpoint_before_the_bytes() {
    let (_directory, store) = fresh().await;
    let (data, directory) = left_over(&store).await;
    let mut ingest = begin(&store, "a", &data).await;
    assert!(directory.join("durable").exists());
    ingest.restart().await.unwrap();
    // Killed now, with 400 new bytes, it would be taken for where the old ones had come to.
    assert!(!directory.join("durable").exists() && !directory.join("progress").exists());
}

#[tokio::test]
async fn a_checkpoint_of_unsynced_bytes_ends_with_the_boot() {
    let (_directory, store) = fresh().await;
    let (_data, directory) = left_over(&store).await;
    let durable = fs::read_to_string(directory.join("durable")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let of_boot = |boot: &str| durable.replace(r#""boot":null"#, &format!(r#""boot":"{boot}""#));
    fs::remove_file(directory.join("durable")).unwrap();
    fs::write(directory.join("progress"), of_boot(boot.trim())).unwrap();
    assert_eq!(offset(&store).await, 400, "the process died, the kernel lives");
    fs::write(directory.join("progress"), of_boot("another")).unwrap();
    assert_eq!(offset(&store).await, 0, "the kernel died too");
    fs::write(directory.join("durable"), of_boot(boot.trim())).unwrap();
    assert_eq!(offset(&store).await, 0, "a durable one has no boot");
}

#[tokio::test]
async fn useless_left_overs_are_swept() {
    let (_directory, store) = fresh().await;
    let (_data, directory) = left_over(&store).await;
    let ingests = store.root().join("ingest");
    let (no_data, no_request) = (ingests.join("0".repeat(64)), ingests.join("1".repeat(64)));
    for path in [&no_data, &no_request] {
        fs::create_dir(path).unwrap();
    }
    fs::copy(directory.join("ref"), no_data.join("ref")).unwrap();
    fs::copy(directory.join("data"), no_request.join("data")).unwrap();
    let store = LocalStore::open(store.root()).await.unwrap();
    assert!(!no_data.exists() && !no_request.exists());
    assert_eq!(offset(&store).await, 400, "what can be resumed is kept");
}

/// Runs in a process of its own, to be killed: writes the large blob again and again under new references.
#[tokio::test]
#[ignore = "is run by the tests that kill it"]
async fn child_that_writes() {
    let store = LocalStore::open(std::env::var_os(ROOT).unwrap()).await.unwrap();
    let expected = promise(&whole());
    let mut ingest = store
        .ingest(IngestRequest {
            reference: "a".into(),
            expected,
        })
        .await
        .unwrap();
    while ingest.status().offset < (PIECES * PIECE) as u64 {
        let offset = ingest.status().offset as usize;
        println!("at {offset}");
        ingest
            .write(piece(offset / PIECE).slice(offset % PIECE..))
            .await
            .unwrap();
    }
    println!("all");
    ingest.commit(Expected::default()).await.unwrap();
    println!("committed");
}

/// Starts this test program again for one of its tests.
fn child(test: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(ROOT, root);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Lets the child write until it says `word`, and a little longer, and kills it.
fn kill_when_it_says(word: &str, root: &Path, later: std::time::Duration) {
    let mut child = child("child_that_writes", root).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .any(|line| line.unwrap() == word);
    assert!(said, "the child ended before it said {word}");
    std::thread::sleep(later);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_leaves_what_it_had() {
    let (_directory, store) = fresh().await;
    let root = store.root().to_owned();
    kill_when_it_says(&format!("at {}", 40 * PIECE), &root, std::time::Duration::ZERO);
    let digest = sha256(&whole());
    assert_eq!(store.info(&digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    let resumed = offset(&store).await;
    // 40 MiB less what may be queued, and less one interval between checkpoints.
    assert!(resumed >= 16 << 20, "only {resumed} bytes were kept");
    go_on(&store, &whole()).await.unwrap();
    store.verify(&digest).await.unwrap();
    assert!(store.ingests().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_killed_at_any_moment_leaves_a_whole_store() {
    let digest = sha256(&whole());
    let moments = [
        "at 0",
        "at 1048576",
        "at 17825792",
        "at 35651584",
        "at 49283072",
        "all",
        "committed",
    ];
    for (number, word) in moments.iter().cycle().take(14).enumerate() {
        let (_directory, store) = fresh().await;
        let root = store.root().to_owned();
        kill_when_it_says(word, &root, std::time::Duration::from_millis(number as u64));
        let store = LocalStore::open(&root).await.unwrap();
        match store.info(&digest).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert_ne!(*word, "committed", "what was acknowledged is there");
                go_on(&store, &whole()).await.unwrap();
            }
        }
        store.verify(&digest).await.unwrap();
        for left in store.ingests().await.unwrap() {
            store.abort(&left.reference).await.unwrap();
        }
        assert_eq!(fs::read_dir(root.join("ingest")).unwrap().count(), 0);
    }
}

/// A blob of the process that is killed at random: most are short, one in five needs checkpoints.
fn blob(number: usize) -> Bytes {
    match number % 5 {
        4 => (0..18)
            .map(|part| piece(number + part))
            .collect::<Vec<_>>()
            .concat()
            .into(),
        _ => piece(number).slice(..number * 104_729 % PIECE),
    }
}

/// Runs in a process of its own, to be killed: commits one blob after the other, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run by the test that kills it"]
async fn child_that_commits() {
    let store = LocalStore::open(std::env::var_os(ROOT).unwrap()).await.unwrap();
    let first: usize = std::env::var(FIRST).unwrap().parse().unwrap();
    for number in first.. {
        let data = blob(number);
        let request = IngestRequest {
            reference: format!("blob-{number}"),
            expected: promise(&data),
        };
        match store.ingest(request).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
            Ok(mut ingest) => {
                let offset = ingest.status().offset as usize;
                println!("begun {number} {offset}");
                for piece in data.slice(offset..).chunks(100_000) {
                    ingest.write(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                match number % 3 {
                    0 => ingest.replace(Expected::default()).await.unwrap(),
                    _ => ingest.commit(Expected::default()).await.unwrap(),
                };
            }
        }
        println!("committed {number}");
    }
}

const FIRST: &str = "LONGSHORE_TEST_FIRST";

/// What a child had said when it was killed.
#[derive(Default)]
struct Said {
    committed: Vec<usize>,
    /// The last one that it began, and where.
    begun: Option<(usize, u64)>,
}

/// Lets the child commit so many blobs, and a little more, and kills it.
fn kill_after(commits: usize, root: &Path, first: usize, later: std::time::Duration) -> Said {
    let mut child = child("child_that_commits", root)
        .env(FIRST, first.to_string())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Said::default();
    let mut take = |line: String| match line.split(' ').collect::<Vec<_>>()[..] {
        ["committed", number] => said.committed.push(number.parse().unwrap()),
        ["begun", number, offset] => said.begun = Some((number.parse().unwrap(), offset.parse().unwrap())),
        _ => {}
    };
    let mut seen = 0;
    while seen < commits {
        let line = lines.next().expect("the child lives").unwrap();
        seen += usize::from(line.starts_with("committed "));
        take(line);
    }
    std::thread::sleep(later);
    child.kill().unwrap();
    // The last line may be torn; what it said of a number is then none.
    lines.map_while(Result::ok).for_each(&mut take);
    child.wait().unwrap();
    said
}

/// `LONGSHORE_KILLS` says how many times.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_at_random_moments() {
    let kills: usize = std::env::var("LONGSHORE_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let (_directory, store) = fresh().await;
    let (mut first, mut again, mut kept) = (0, 0, 0);
    for round in 0..kills {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), round);
        let later = std::time::Duration::from_micros(random % 40_000);
        let said = kill_after(round % 4, store.root(), first, later);
        let store = LocalStore::open(store.root()).await.unwrap();
        for number in &said.committed {
            let digest = sha256(&blob(*number));
            assert!(store.contains(&digest).await.unwrap(), "blob {number} was acknowledged");
        }
        let found = Verifier::new(&store).all().await.unwrap();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        first = said.committed.last().map_or(first, |last| last + 1);
        // At most the one that was begun is left, and it is resumed by the next child, or here by the last.
        let left = store.ingests().await.unwrap();
        assert!(left.len() <= 1, "{left:?}");
        for ingest in left {
            kept += ingest.offset;
            if let Some((number, offset)) = said.begun
                && ingest.reference == format!("blob-{number}")
            {
                assert!(ingest.offset >= offset, "what was resumed once is not lost: {ingest:?}");
                again += blob(number).len() as u64 - ingest.offset;
            }
        }
    }
    let data = blob(first);
    let reference = format!("blob-{first}");
    match store
        .ingest(IngestRequest {
            reference,
            expected: promise(&data),
        })
        .await
    {
        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        Ok(mut ingest) => {
            let offset = ingest.status().offset as usize;
            ingest.write(data.slice(offset..)).await.unwrap();
            ingest.commit(Expected::default()).await.unwrap();
        }
    }
    store.verify(&sha256(&data)).await.unwrap();
    assert_eq!(fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
    eprintln!("{kills} kills, {first} blobs; partial ingests kept {kept} bytes, {again} were left to fetch");
}

// ---- Other processes and stores

#[tokio::test]
async fn two_stores_share_a_directory() {
    let (_directory, one) = fresh().await;
    let two = LocalStore::open(one.root()).await.unwrap();
    let data = piece(0);
    let mut ingest = begin(&one, "a", &data).await;
    let request = IngestRequest {
        reference: "a".into(),
        expected: promise(&data),
    };
    assert_eq!(two.ingest(request.clone()).await.unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(two.abort("a").await.unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(two.status("a").await.unwrap().reference, "a");
    ingest.write(data.clone()).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    two.verify(&sha256(&data)).await.unwrap();
    assert_eq!(two.ingest(request).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_is_kept_out_until_it_dies() {
    let (_directory, store) = fresh().await;
    let mut child = child("child_that_writes", store.root()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("at ")));
    // The child is stopped, so that it can't finish meanwhile.
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    let begun = store
        .ingest(IngestRequest {
            reference: "a".into(),
            expected: Expected::default(),
        })
        .await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(begun.unwrap_err().kind(), ErrorKind::InUse);
    go_on(&store, &whole()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_stores_race_for_one_reference() {
    let (_directory, store) = fresh().await;
    let tasks = (0..8u8).map(|task| {
        let root = store.root().to_owned();
        tokio::spawn(async move {
            let store = LocalStore::open(root).await.unwrap();
            for round in 0..20u8 {
                let data = Bytes::from(vec![task, round]);
                // Each in turn: a directory that its former holder just removed must not be taken for a claim.
                loop {
                    match store.put("a", data.clone(), promise(&data)).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::InUse, "{error:?}"),
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(store.walk().count().await, 160);
    assert_eq!(fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

// ---- Full disk

/// Runs on a filesystem of 8 MiB, in a mount namespace of its own.
#[tokio::test]
#[ignore = "is run by full_disk"]
async fn child_on_a_full_disk() {
    let store = LocalStore::open(std::env::var_os(ROOT).unwrap()).await.unwrap();
    let small = piece(0);
    store.put("small", small.clone(), promise(&small)).await.unwrap();

    let large = whole();
    let mut ingest = begin(&store, "large", &large).await;
    let follower = store.follow(&sha256(&large)).await.unwrap();
    let mut failed = None;
    for number in 0..PIECES {
        if let Err(error) = ingest.write(piece(number)).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("the disk is full");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().contains(store.root().to_str().unwrap()), "{error}");
    assert_eq!(
        ingest.write(small.clone()).await.unwrap_err().kind(),
        ErrorKind::StorageFull,
        "it stays so"
    );
    assert_eq!(
        follower.read_at(0, &mut [0; 10]).await.unwrap_err().kind(),
        ErrorKind::Abandoned
    );
    assert_eq!(
        ingest.commit(Expected::default()).await.unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(
        store.info(&sha256(&large)).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    store.verify(&sha256(&small)).await.unwrap();

    // With the left-over thrown away, and no reader of it left, there is room again, and none of it was lost.
    store.abort("large").await.unwrap();
    drop(follower);
    let other = Bytes::from([&piece(1)[..], &piece(2), &piece(3), &piece(4)].concat());
    store.put("other", other.clone(), promise(&other)).await.unwrap();
    store.verify(&sha256(&other)).await.unwrap();

    // A restart makes the writer whole again.
    let mut ingest = begin(&store, "large", &large).await;
    let mut written = 0;
    while ingest.write(piece(written)).await.is_ok() {
        written += 1;
    }
    store.remove(&sha256(&other)).await.unwrap();
    ingest.restart().await.unwrap();
    ingest.write(piece(0)).await.unwrap();
    drop(ingest);
    store.settle().await;
    assert_eq!(store.status("large").await.unwrap().offset, PIECE as u64);
    println!("done");
}

/// Runs there too: however little room there is, and so at whatever step it ends, a put is whole or did not happen.
#[tokio::test]
#[ignore = "is run by full_disk_at_every_step"]
async fn child_with_little_room() {
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let filler = root.with_file_name("filler");
    let data = piece(0);
    let (mut refused, mut stored) = (0, 0);
    // The blob takes 256 pages, and a few more go with the files beside it.
    for pages in (0..24).chain((24..248).step_by(16)).chain(248..280) {
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let full = file.metadata().unwrap().len();
        file.set_len(full.saturating_sub(pages * 4096)).unwrap();
        // Or else it would keep the room when it is removed.
        drop(file);
        let put = async {
            let store = LocalStore::open(&root).await?;
            let put = store.put("a", data.clone(), promise(&data)).await;
            store.settle().await;
            put
        };
        let put = put.await;
        fs::remove_file(&filler).unwrap();

        let store = LocalStore::open(&root).await.unwrap();
        let found = Verifier::new(&store).all().await.unwrap();
        assert!(found.problems.is_empty(), "with {pages} pages: {:?}", found.problems);
        match put {
            Ok(_) => stored += 1,
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::StorageFull, "with {pages} pages: {error:?}");
                assert_eq!(found.blobs, 0, "with {pages} pages");
                go_on(&store, &data).await.unwrap();
            }
        }
        store.verify(&sha256(&data)).await.unwrap();
        assert!(store.ingests().await.unwrap().is_empty(), "with {pages} pages");
        store.settle().await;
        let mut names: Vec<_> = fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["blobs", "index.json", "ingest", "oci-layout"],
            "with {pages} pages"
        );
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(refused > 0 && stored > 0, "{refused} refused, {stored} stored");
    println!("done");
}

#[test]
fn full_disk() {
    on_a_small_disk("child_on_a_full_disk");
}

#[test]
fn full_disk_at_every_step() {
    on_a_small_disk("child_with_little_room");
}

fn on_a_small_disk(child: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let test = std::env::current_exe().unwrap();
    let script = format!("mount -t tmpfs -o size=8m tmpfs '{path}' || exit 99; exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(test)
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(ROOT, directory.path().join("store"))
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(99) && output.status.code() != Some(1) => output,
        other => {
            return longshore_testing::skip(&format!("no mount namespace with a tmpfs can be made: {other:?}"));
        }
    };
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success() && out.contains("done"), "{out}{err}");
}

// ---- Executors

#[test]
fn a_runtime_that_ends_takes_no_blob_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = whole();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(LocalStore::open(directory.path())).unwrap();
    let mut ingest = runtime.block_on(begin(&store, "a", &data));
    runtime.block_on(ingest.write(data.slice(..PIECE))).unwrap();
    runtime.shutdown_background();
    drop(ingest);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(begin(&store, "a", &data).await.status().offset, PIECE as u64);
        let store: Arc<dyn ContentStore> = Arc::new(store);
        assert_eq!(store.ingests().await.unwrap().len(), 1);
    });
}
