//! The main job, from end to end, in one process: pull, unpack, bundle, run, with events and metrics.
//!
//! ```text
//! quickstart                                  an image made of this machine's programs, from a registry in this process
//! quickstart IMAGE [-- COMMAND...]            any registry's image
//! quickstart oci:DIR[:TAG] [-- COMMAND...]    an OCI image layout on disk
//! ```

use std::process::ExitCode;

use anyhow::{Context, Result};
use longshore::{Engine, Filter, Io};
use longshore_examples::quickstart::{Arguments, Clock, print_events, root_folder};

#[tokio::main]
async fn main() -> ExitCode {
    match quickstart().await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn quickstart() -> Result<u8> {
    let Arguments { source, command } = Arguments::parse()?;
    let mut clock = Clock::start();

    let root = root_folder()?;
    let engine = Engine::open(&root).await.context("no engine")?;
    let events = print_events(engine.subscribe(Filter::all()));
    clock.step(&format!("open the engine at {}", root.display()));

    // The image: from a registry, from a folder, or from a registry in this process that serves this machine's own programs.
    let (engine, name, _registry) = source.connect(engine).await?;
    clock.step("find the image");
    let image = engine.pull(&name).await?;
    clock.step("resolve, pull, verify, unpack");

    let container = engine
        .container("quickstart")
        .image(&image)
        .args(command)
        .io(Io::inherit())
        .create()
        .await?;
    clock.step("bundle and create");
    container.start().await?;
    clock.step("start");
    let status = container.wait().await?;
    clock.step("run to the end");
    container.delete(longshore::DeleteMode::Stopped).await?;
    clock.step("delete");

    events.finish();
    clock.print();
    print!("\n{}", engine.metrics().await?);
    Ok(status.code.try_into().unwrap_or(255))
}
