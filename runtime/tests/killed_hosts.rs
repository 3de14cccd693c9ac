//! Hosts that are killed, one after the other, while their containers start, exit and start again: every exit is told once, and as it was.
//!
//! `LONGSHORE_KILLS` and `LONGSHORE_KILLED_CONTAINERS` say how often, and of how many containers; `LONGSHORE_KILL_WITHIN`, after how many milliseconds at most. CI has few.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use longshore_runtime::{
    ContainerId, CreateRequest, DeleteMode, ErrorKind, Executor, Io, KillScope, Lifetime, LinuxExecutor, LogFile,
    LogReader, ProcessId, Status,
};
use support::{place, spec};

const ROLE: &str = "LONGSHORE_TEST_KILLED_HOST_DIR";
/// The annotation that says which run of its slot a container is.
const RUN: &str = "run";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// How a run is to end.
fn expected(slot: u64, run: u64) -> u32 {
    match (slot + run) % 5 {
        // The host kills it.
        4 => 128 + 9,
        _ => ((slot * 31 + run * 7) % 120) as u32,
    }
}

fn id_of(dir: &Path, slot: u64) -> ContainerId {
    let prefix = fs::read_to_string(dir.join("prefix")).expect("a prefix");
    ContainerId::new(format!("{prefix}{slot}")).expect("an id")
}

/// An exit as a host has told it.
#[derive(Clone, Copy, Debug)]
struct Told {
    slot: u64,
    run: u64,
    code: u32,
    nanos: u128,
}

fn told(dir: &Path) -> Vec<Told> {
    let text = fs::read_to_string(dir.join("told")).unwrap_or_default();
    let line = |line: &str| {
        let numbers: Vec<u128> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        Told {
            slot: numbers[0] as u64,
            run: numbers[1] as u64,
            code: numbers[2] as u32,
            nanos: numbers[3],
        }
    };
    text.lines().map(line).collect()
}

/// A host at work.
struct Host {
    dir: PathBuf,
    executor: LinuxExecutor,
    /// What was told, by this host or those before it.
    told: Mutex<HashSet<(u64, u64)>>,
}

impl Host {
    /// Keeps one container running, until the last run is to be the last.
    async fn keep(&self, slot: u64) -> longshore_runtime::Result<()> {
        let id = id_of(&self.dir, slot);
        loop {
            let state = match self.executor.state(&id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if self.dir.join("finish").exists() {
                        return Ok(());
                    }
                    self.create(slot, &id).await?;
                    continue;
                }
                state => state?,
            };
            let run: u64 = state.annotations[RUN].parse().expect("a number");
            match state.status {
                Status::Created => match self.executor.start(&id).await {
                    // The host before was killed when it had just started it.
                    Err(error) if error.kind() == ErrorKind::FailedPrecondition => {}
                    started => started?,
                },
                Status::Stopped => {
                    let exit = self.executor.wait(&id, &ProcessId::Init).await?;
                    self.tell(Told {
                        slot,
                        run,
                        code: exit.code,
                        nanos: exit
                            .at
                            .duration_since(SystemTime::UNIX_EPOCH)
                            .expect("a time")
                            .as_nanos(),
                    });
                    self.executor.delete(&id, DeleteMode::Stopped).await?;
                }
                _ if expected(slot, run) == 137 && self.has_said(slot, run) => {
                    let _ = self.executor.kill(&id, 9, KillScope::Init).await;
                    self.executor.wait(&id, &ProcessId::Init).await?;
                }
                _ if expected(slot, run) == 137 => tokio::time::sleep(Duration::from_millis(2)).await,
                _ => drop(self.executor.wait(&id, &ProcessId::Init).await?),
            }
        }
    }

    fn has_said(&self, slot: u64, run: u64) -> bool {
        said(&self.dir, slot).contains(&run)
    }

    async fn create(&self, slot: u64, id: &ContainerId) -> longshore_runtime::Result<()> {
        let run = {
            let told = self.told.lock().expect("nobody panics");
            (0..)
                .find(|run| !told.contains(&(slot, *run)))
                .expect("there is no last")
        };
        let ends = match expected(slot, run) {
            137 => "sleep 1000".to_owned(),
            code => format!("sleep 0.0{}; exit {code}", slot % 10),
        };
        let mut spec = spec(&[
            "sh",
            "-c",
            &format!("echo run {run}; echo {run} >> /said/{slot}; {ends}"),
        ]);
        spec["annotations"] = serde_json::json!({ RUN: run.to_string() });
        let io = Io::log(LogFile::new(self.dir.join(format!("log{slot}"))));
        let request = CreateRequest::new(id.clone(), &self.dir, support::parse(&spec), io).lifetime(Lifetime::Detached);
        self.executor.create(request).await.map(drop)
    }

    /// Before the container is deleted: who is killed in between finds that it is told.
    fn tell(&self, exit: Told) {
        if self.told.lock().expect("nobody panics").insert((exit.slot, exit.run)) {
            let line = format!("{} {} {} {}\n", exit.slot, exit.run, exit.code, exit.nanos);
            let file = fs::File::options()
                .append(true)
                .create(true)
                .open(self.dir.join("told"));
            file.expect("it opens")
                .write_all(line.as_bytes())
                .expect("it is written");
        }
    }
}

/// The runs of a slot that have said so themselves.
fn said(dir: &Path, slot: u64) -> Vec<u64> {
    let text = fs::read_to_string(dir.join("rootfs/said").join(slot.to_string())).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

/// Not a test: the host that the test kills.
#[test]
fn host_program() {
    let Some(dir) = std::env::var_os(ROLE) else { return };
    let dir = PathBuf::from(dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let host = Arc::new(Host {
            executor: LinuxExecutor::open(dir.join("state")).expect("it opens"),
            told: Mutex::new(told(&dir).iter().map(|exit| (exit.slot, exit.run)).collect()),
            dir,
        });
        let slots = number("LONGSHORE_KILLED_CONTAINERS", 12);
        let keeping = (0..slots).map(|slot| {
            let host = Arc::clone(&host);
            tokio::spawn(async move { host.keep(slot).await })
        });
        for kept in keeping.collect::<Vec<_>>() {
            if let Err(error) = kept.await.expect("no panic") {
                eprintln!("{}", support::chain(&error));
                std::process::exit(1);
            }
        }
    });
}

fn start_host(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "host_program", "--nocapture"])
        .env(ROLE, dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Processes that have something of the test's directory open, or mounted.
fn left(dir: &Path) -> Vec<String> {
    let name = dir.to_str().expect("text");
    let has = |process: &Path| {
        let mounts = fs::read_to_string(process.join("mountinfo")).is_ok_and(|mounts| mounts.contains(name));
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        mounts || open.any(|file| file.starts_with(dir))
    };
    fs::read_dir("/proc")
        .expect("readable")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().parse::<u32>().is_ok())
        })
        .filter(|path| has(path))
        .map(|path| format!("{}: {:?}", path.display(), fs::read_to_string(path.join("comm"))))
        .collect()
}

fn groups(prefix: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let groups = hierarchies.flat_map(|h| fs::read_dir(h.path()).into_iter().flatten().flatten());
    let ours = groups.filter(|group| {
        group
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("longshore-{prefix}"))
    });
    ours.map(|group| group.path()).collect()
}

#[test]
fn every_exit_is_told_once_and_as_it_was_although_hosts_are_killed() {
    let Some(place) = place() else { return };
    let dir = place.dir.path().canonicalize().expect("it is there");
    let prefix = format!("t{}-killed-", std::process::id());
    fs::write(dir.join("prefix"), &prefix).expect("a file");
    fs::create_dir(dir.join("rootfs/said")).expect("a folder");
    let kills = number("LONGSHORE_KILLS", 12);
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    for _ in 0..kills {
        let mut host = start_host(&dir);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(
            20 + random % number("LONGSHORE_KILL_WITHIN", 300),
        ));
        // It runs until it is killed: one that has ended by itself has failed.
        assert_eq!(
            host.try_wait()
                .expect("a status")
                .map(|status: ExitStatus| status.code()),
            None
        );
        host.kill().expect("it is killed");
        host.wait().expect("it ends");
    }
    fs::write(dir.join("finish"), "").expect("a file");
    assert!(start_host(&dir).wait().expect("it ends").success());

    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_nanos();
    let mut by_slot: BTreeMap<u64, Vec<Told>> = BTreeMap::new();
    let all = told(&dir);
    for exit in &all {
        assert_eq!(exit.code, expected(exit.slot, exit.run), "{exit:?}");
        by_slot.entry(exit.slot).or_default().push(*exit);
    }
    for (slot, exits) in &by_slot {
        let runs: Vec<u64> = exits.iter().map(|exit| exit.run).collect();
        assert_eq!(
            runs,
            (0..runs.len() as u64).collect::<Vec<_>>(),
            "slot {slot}: none twice, none lost"
        );
        assert_eq!(said(&dir, *slot), runs, "slot {slot}: what ran is what was told");
        let in_order = exits.windows(2).all(|pair| pair[0].nanos <= pair[1].nanos);
        assert!(
            in_order && exits.iter().all(|exit| exit.nanos <= now),
            "slot {slot}: {exits:?}"
        );
        let log = LogReader::open(dir.join(format!("log{slot}")))
            .expect("it opens")
            .all()
            .expect("readable");
        let lines: Vec<_> = log
            .iter()
            .map(|record| String::from_utf8_lossy(&record.text).into_owned())
            .collect();
        let spoken: Vec<_> = runs.iter().map(|run| format!("run {run}\n")).collect();
        assert_eq!(lines, spoken, "slot {slot}: what it said is in its log");
    }
    eprintln!("{kills} kills, {} containers, {} exits told", by_slot.len(), all.len());
    let state: Vec<_> = fs::read_dir(dir.join("state"))
        .expect("readable")
        .flatten()
        .map(|e| e.path())
        .collect();
    assert!(state.is_empty(), "{state:?}");
    assert_eq!(groups(&prefix), Vec::<PathBuf>::new());
    drop(place.executor);
    assert_eq!(left(&dir), Vec::<String>::new());
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .expect("readable")
            .contains(dir.to_str().expect("text"))
    );
}
