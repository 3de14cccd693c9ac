//! The executor against its peers and against a floor: the whole table as ratios in one run.
//!
//! `cargo bench -p longshore-benches --bench executor [-- PAIRS]`, as root, with nothing else running. Each ratio is the median over pairs that take turns
//! (A B A B), so that what slows the machine slows both. `longshore-runc` is `$LONGSHORE_RUNC`, or what `examples/build-static` has made.

mod alive;
mod bundle;
mod floor;
mod pairs;
mod parallel;
mod peers;
mod resident;

use std::process::ExitCode;

use bundle::Bundle;
use pairs::Table;
use peers::Peers;

/// Pairs a row, unless the command line has another number.
const PAIRS: usize = 50;
/// Containers of the row that runs them side by side.
const MANY: usize = 200;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["floor", rootfs] => floor::Floor::new(rootfs.as_ref()).life(),
        ["peak", program @ ..] => peers::peak(program),
        ["resident", bundle, mebibytes] => resident::serve(bundle.as_ref(), mebibytes.parse().expect("a number")),
        [] => table(PAIRS),
        [pairs] => table(pairs.parse().expect("a number of pairs")),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn table(pairs: usize) {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let Some(bundle) = Bundle::new() else {
        println!("SKIPPED: needs /bin/busybox, statically linked");
        return;
    };
    let peers = Peers::find(&bundle);
    let mut table = Table::new(pairs);
    peers.print_sizes(&mut table);
    peers.compare_runs(&mut table);
    peers.compare_execs(&mut table);
    alive::compare(&mut table, &bundle, &peers);
    resident::compare(&mut table, &bundle);
    parallel::compare(&mut table, &bundle, &peers);
}
