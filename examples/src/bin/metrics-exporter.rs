//! A container, and its engine's metrics for Prometheus: `metrics-exporter [ADDRESS [IMAGE [COMMAND...]]]`.
//!
//! It prints where the metrics are, and serves them until the container ends, or it is interrupted. Without arguments the container is one of this
//! machine's shell that counts for an hour, and the address is 127.0.0.1:9417.

use anyhow::Result;
use longshore::{DeleteMode, Engine, Io};
use longshore_examples::exporter::Exporter;
use longshore_examples::quickstart::{Source, root_folder};

const ADDRESS: &str = "127.0.0.1:9417";
const COUNT: &str = "i=0; while [ $i -lt 3600 ]; do i=$((i + 1)); sleep 1; done";

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| ADDRESS.to_owned());
    let source = words.next().map_or(Source::Host, |image| Source::of(&image));
    let command: Vec<String> = words.collect();

    let (engine, name, registry) = source.connect(Engine::open(root_folder()?).await?).await?;
    let image = engine.pull(name).await?;
    drop(registry);
    let mut container = engine.container("counted").image(&image).io(Io::null());
    if !command.is_empty() {
        container = container.args(command);
    } else if image.name().contains("/demo/host") {
        container = container.args(["/bin/sh", "-c", COUNT]);
    }
    let container = container.create().await?;
    let exporter = Exporter::serve(engine, &address).await?;
    println!("http://{}/metrics", exporter.address());
    let started = container.start().await;
    tokio::select! {
        _ = container.wait(), if started.is_ok() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    container.delete(DeleteMode::Force).await?;
    Ok(started?)
}
