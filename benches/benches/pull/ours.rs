use std::path::Path;
use std::process::Command;

use longshore::Engine;

use crate::measure::{Took, clock};

/// Pulls as a program does that has us built in; a process of its own, so that its memory is its own.
pub(crate) fn take(folder: &Path, name: &str) -> Took {
    Took::by(|| {
        let output = Command::new("/proc/self/exe")
            .arg("ours")
            .arg(folder.join("longshore"))
            .arg(name)
            .output()
            .expect("this program starts again");
        let (text, why) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{why}");
        let mut numbers = text.split_whitespace().map(|word| word.parse().expect("a number"));
        let mut next = || numbers.next().expect("two numbers");
        (next(), next())
    })
}

/// In that process.
pub(crate) fn pull(root: &Path, name: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let wall = clock(|| {
        runtime.block_on(async {
            let engine = Engine::open(root).await.expect("an engine");
            let image = engine.pull(name).await.expect("pulled");
            std::fs::write(root.join("chain-id"), image.chain_id().expect("it has layers")).expect("written");
        });
    });
    println!("{wall} {}", resident());
}

/// MiB of memory at most.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("it is told");
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib / 1024.0
}
