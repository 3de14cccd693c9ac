//! What a snapshot costs, and what finding out its changes does.

use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, stream};
use longshore::snapshot::{DiffOptions, Labels, OverlaySnapshotter, Snapshotter, diff_snapshot};

use crate::measure::{Place, median};

/// Times that it is done for a median.
const TIMES: usize = 300;
/// Files that are changed for a diff.
const CHANGED: usize = 100;

/// Prepare, mounts and remove of a snapshot with few others and with many.
pub(crate) fn compare(places: &[Place]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for place in places {
        place.run(|folder| {
            runtime.block_on(async {
                let snapshotter = Arc::new(OverlaySnapshotter::open(folder.join("snapshots")).await.expect("a snapshotter"));
                commit(&*snapshotter, "base", |_| ()).await;
                let mut took = Vec::new();
                let mut there = 0;
                for many in [10, 100_000] {
                    let prepare = |number: usize| {
                        let snapshotter = snapshotter.clone();
                        tokio::spawn(async move {
                            let key = format!("there-{number}");
                            snapshotter.prepare(&key, Some("base"), Labels::new()).await.expect("prepared");
                        })
                    };
                    let all = stream::iter(there..many).map(prepare).buffer_unordered(16);
                    all.for_each(async |done| done.expect("no panic")).await;
                    there = many;
                    took.push(turn(&*snapshotter).await);
                }
                println!(
                    "prepare, mounts and remove of a snapshot, {}: {:.3} ms with 10 there, {:.3} ms with 100,000 (wanted: under 1 ms, independent)",
                    place.name, took[0], took[1]
                );
            });
        });
    }
}

/// Milliseconds in the middle.
async fn turn(snapshotter: &dyn Snapshotter) -> f64 {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let begun = std::time::Instant::now();
        snapshotter
            .prepare("turn", Some("base"), Labels::new())
            .await
            .expect("prepared");
        snapshotter.mounts("turn").await.expect("mounts");
        snapshotter.remove("turn").await.expect("removed");
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    median(times.into_iter())
}

async fn commit(snapshotter: &dyn Snapshotter, name: &str, fill: impl FnOnce(&Path)) {
    let mounts = snapshotter
        .prepare("filling", None, Labels::new())
        .await
        .expect("prepared");
    fill(&mounts[0].source);
    snapshotter
        .commit("filling", name, Labels::new())
        .await
        .expect("committed");
}

/// The diff of a snapshot on the pulled image with some changed files against one on a tree of so many files.
pub(crate) fn compare_diffs(place: &Place, folder: &Path) {
    let root = folder.join("longshore");
    let image = std::fs::read_to_string(root.join("chain-id")).expect("the image was pulled");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let large = OverlaySnapshotter::open(root.join("snapshots/overlay")).await.expect("a snapshotter");
        let small = OverlaySnapshotter::open(folder.join("small")).await.expect("a snapshotter");
        commit(&small, "small", change).await;
        let mut times = [Vec::new(), Vec::new()];
        for snapshotter in [(&large, image.as_str()), (&small, "small")] {
            let mounts = snapshotter.0.prepare("changed", Some(snapshotter.1), Labels::new()).await.expect("prepared");
            change(Path::new(mounts[0].value_of("upperdir").expect("an overlay")));
        }
        for _ in 0..11 {
            for (snapshotter, times) in [&large, &small].into_iter().zip(&mut times) {
                let begun = std::time::Instant::now();
                let options = DiffOptions::default();
                diff_snapshot(snapshotter, "changed", std::io::sink(), &options).await.expect("a layer");
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [large, small] = times.map(|times| median(times.into_iter()));
        println!(
            "diff of {CHANGED} changed files, {}: {large:.2} ms on the image, {small:.2} ms on a tree of {CHANGED} files (ratio {:.2}; wanted: follows the changes)",
            place.name,
            large / small
        );
    });
}

/// Changes files that the image has, in directories that it has.
fn change(tree: &Path) {
    for number in 0..CHANGED {
        let folder = tree.join(format!("usr/lib/part-0/section-0/unit-{}", number % 10 * 12));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(format!("file-{}.so", number % 10 * 12 + number / 10));
        std::fs::write(file, format!("changed {number}\n").repeat(100)).expect("written");
    }
}
