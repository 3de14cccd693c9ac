//! What several of the tests begin with.

use longshore::{Container, Engine, Image, Io};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::{require_root, skip};
use tempfile::TempDir;

/// An engine of a folder of its own, with an image in it.
#[allow(dead_code)] // Not every test needs all of it.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) engine: Engine,
    pub(crate) image: Image,
}

impl Site {
    /// `None`, having said why, without root.
    pub(crate) async fn open() -> Option<Self> {
        if let Err(why) = require_root() {
            skip(&why);
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let registry = serve_host_image().await.expect("a registry");
        let engine = Engine::open(folder.path()).await.expect("an engine");
        let name = format!("{}/demo/host:latest", registry.host());
        let image = engine.pull(name).await.expect("pulled");
        Some(Self { folder, engine, image })
    }

    /// The same in parts: the folder is to stay for as long as the engine.
    #[allow(dead_code)] // Not every test needs it.
    pub(crate) async fn parts() -> Option<(TempDir, Engine, Image)> {
        let Self { folder, engine, image } = Self::open().await?;
        Some((folder, engine, image))
    }
}

/// Opens a root again. What waited for the ends of containers may just be letting go of it.
#[allow(dead_code)] // Not every test needs one.
pub(crate) async fn reopen(root: &std::path::Path) -> Engine {
    loop {
        match Engine::open(root).await {
            Err(error) if error.kind() == longshore::ErrorKind::Locked => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            outcome => return outcome.expect("an engine"),
        }
    }
}

/// A container that runs until it is stopped.
#[allow(dead_code)] // Not every test needs one.
pub(crate) async fn sleeper(engine: &Engine, image: &Image, id: &str) -> Container {
    let builder = engine
        .container(id)
        .image(image)
        .args(["/bin/sleep", "60"])
        .io(Io::null());
    let container = builder.create().await.expect("created");
    container.start().await.expect("started");
    container
}
