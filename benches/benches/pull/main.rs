//! Pull and unpack against containerd, skopeo with umoci, and a floor; and what snapshots cost: the whole table as ratios in one run.
//!
//! `cargo bench -p longshore-benches --bench pull [-- PERCENT [ROUNDS]]`, as root, with nothing else running. The image of 5 layers (1.5 GB and 70,000 files unpacked,
//! about 400 MB compressed) is made by `image.rs`, or PERCENT of it, and served by docker-registry on loopback. Each ratio is the median over pairs that take turns (A B A B), on
//! tmpfs and on disk. Debian's containerd is `containerd` and `ctr` of the path; containerd 2 is what `$LONGSHORE_CONTAINERD`, a directory, has under these names.

mod containerd;
mod floor;
mod image;
mod measure;
mod ours;
mod registry;
mod skopeo;
mod snapshots;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use containerd::Containerd;
use measure::{Place, Took, places, row};
use registry::Registry;
use skopeo::Skopeo;

/// Rounds, unless the command line has another number.
const ROUNDS: usize = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let number = |word: &str| word.parse().expect("a number");
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ours", root, name] => ours::pull(root.as_ref(), name),
        ["floor", target, layers @ ..] => floor::run(target.as_ref(), layers),
        [] => table(100, ROUNDS),
        [percent] => table(number(percent), ROUNDS),
        [percent, rounds] => table(number(percent), number(rounds)),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn table(percent: usize, rounds: usize) {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: needs root");
    }
    if let Err(why) = longshore_testing::require_tool("docker-registry") {
        return println!("SKIPPED: {why}");
    }
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let image = image::make(folder.path(), percent);
    println!("{image}");
    let registry = Registry::start(folder.path());
    println!(
        "median of {rounds} pairs (wall seconds; CPU seconds of user and system behind it); the ratio is the median of the pairs' ratios"
    );
    measure::head();
    let peers = Peers::find();
    for place in places() {
        compare(&place, &registry, &image.layers, &peers, rounds);
    }
    snapshots::compare(&places());
}

/// Those that are there.
struct Peers {
    two: Option<Containerd>,
    debian: Option<Containerd>,
    skopeo: Option<Skopeo>,
}

impl Peers {
    fn find() -> Self {
        Self {
            two: Containerd::two(),
            debian: Containerd::debian(),
            skopeo: Skopeo::find(),
        }
    }
}

/// A contender: its name, what is wanted of us beside it, and its run.
type Contender<'a> = (&'a str, &'a str, Box<dyn Fn(&Path) -> Took + 'a>);

fn compare(place: &Place, registry: &Registry, layers: &[PathBuf], peers: &Peers, rounds: usize) {
    let name = registry.image();
    let mut contenders: Vec<Contender<'_>> = vec![("floor", "<= 1.25", Box::new(|folder| floor::take(folder, layers)))];
    for (containerd, wanted) in [(&peers.two, "<= 0.30"), (&peers.debian, "<= 0.25")] {
        if let Some(containerd) = containerd {
            let run = |folder: &Path| containerd.pull(folder, &name);
            contenders.push((&containerd.name, wanted, Box::new(run)));
        }
    }
    if let Some(skopeo) = &peers.skopeo {
        let run = |folder: &Path| skopeo.pull(folder, &name);
        contenders.push(("skopeo + umoci", "<= 0.10", Box::new(run)));
    }
    for (other, wanted, run) in contenders {
        let pairs: Vec<(Took, Took)> = (0..rounds)
            .map(|_| (place.run(|folder| ours::take(folder, &name)), place.run(&run)))
            .collect();
        row(&format!("pull and unpack / {other}, {}", place.name), &pairs, wanted);
    }
    place.run(|folder| {
        let first = ours::take(folder, &name);
        println!(
            "resident memory of the pull, {}: {:.0} MiB at most (wanted: under 64)",
            place.name, first.resident
        );
        let before = registry.requests();
        let again = ours::take(folder, &name);
        println!(
            "pull again: {} request(s), {:.1} ms (wanted: 1)",
            registry.requests() - before,
            again.wall * 1e3
        );
        snapshots::compare_diffs(place, folder);
        first
    });
}
