//! Many containers at once.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};

use crate::MANY;
use crate::alive::{Host, runtime};
use crate::bundle::Bundle;
use crate::pairs::Table;
use crate::peers::{Peer, Peers};

/// A shell that starts them all and waits for them.
const LOOP: &str = r#"program=$1 root=$2 bundle=$3 prefix=$4 count=$5
for i in $(seq "$count"); do "$program" --root "$root" run --bundle "$bundle" "$prefix-$i" >/dev/null 2>&1 & done
wait"#;

/// How often each is done; the best counts.
const TIMES: usize = 3;

pub(crate) fn compare(table: &mut Table, bundle: &Bundle, peers: &Peers<'_>) {
    let host = Host::new(&bundle.short(), "parallel");
    let runtime = runtime();
    let inside = || {
        runtime.block_on(async {
            let mut lives: FuturesUnordered<_> = (0..MANY).map(|_| host.one_life()).collect();
            while lives.next().await.is_some() {}
        });
    };
    let Some(crun) = &peers.crun else { return };
    let theirs = best(|| shell(crun, bundle));
    let rows = format!("{MANY} at once, a second");
    table.numbers(&format!("{rows}: in process / crun"), "> 1", "/s", best(inside), theirs);
    if let Some(ours) = &peers.ours {
        let ours = best(|| shell(ours, bundle));
        table.numbers(&format!("{rows}: longshore-runc / crun"), "> 1", "/s", ours, theirs);
    }
}

fn best(mut work: impl FnMut()) -> f64 {
    let rates = (0..TIMES).map(|_| {
        let start = Instant::now();
        work();
        MANY as f64 / start.elapsed().as_secs_f64()
    });
    rates.fold(0.0, f64::max)
}

fn shell(peer: &Peer, bundle: &Bundle) {
    let mut command = Command::new("sh");
    command.args(["-c", LOOP, "sh"]).arg(&peer.program).arg(&peer.root);
    command
        .arg(bundle.short())
        .arg(crate::bundle::new_id().as_str())
        .arg(MANY.to_string());
    peer.prepare(&mut command);
    assert!(
        command.status().expect("a shell").success(),
        "the loop of {}",
        peer.name
    );
    assert!(is_empty(&peer.root), "{} has left containers", peer.name);
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}
