//! Runs the container of a bundle with this program's own streams: `run_bundle BUNDLE [TIMES]`.
//!
//! With `TIMES` it runs it that often, and says how long each step took in the median.

use std::path::Path;
use std::time::{Duration, Instant};

use longshore_runtime::{ContainerId, CreateRequest, DeleteMode, Executor, Io, LinuxExecutor, ProcessId};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bundle = args.next().ok_or("usage: run_bundle BUNDLE [TIMES]")?;
    let times: usize = args.next().map_or(Ok(1), |n| n.parse())?;
    let spec = oci_spec::runtime::Spec::load(Path::new(&bundle).join("config.json"))?;
    let executor = LinuxExecutor::open("/run/longshore-example")?;
    let mut laps: Vec<[Duration; 4]> = Vec::new();
    for i in 0..times {
        let id = ContainerId::new(format!("run-{}-{i}", std::process::id()))?;
        let mut last = Instant::now();
        let mut lap = || {
            last.elapsed()
                .max(std::mem::replace(&mut last, Instant::now()).elapsed())
        };
        executor
            .create(CreateRequest::new(id.clone(), &bundle, spec.clone(), Io::inherit()))
            .await?;
        let create = lap();
        executor.start(&id).await?;
        let start = lap();
        let exit = executor.wait(&id, &ProcessId::Init).await?;
        let wait = lap();
        executor.delete(&id, DeleteMode::Stopped).await?;
        laps.push([create, start, wait, lap()]);
        if times == 1 && !exit.success() {
            return Err(format!("it exited with {}", exit.code).into());
        }
    }
    if times > 1 {
        for (i, step) in ["create", "start", "wait", "delete"].into_iter().enumerate() {
            let mut of_step: Vec<_> = laps.iter().map(|l| l[i]).collect();
            of_step.sort();
            eprintln!("{step:8}{:?}", of_step[times / 2]);
        }
    }
    Ok(())
}
