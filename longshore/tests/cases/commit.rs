//! Images made of containers.

use std::time::{Duration, UNIX_EPOCH};

use longshore::distribution::push_image;
use longshore::snapshot::Compression;
use longshore::{Container, DeleteMode, Engine, ErrorKind, Image, Io, Status};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::{require_root, require_tool, skip};

/// A container that changed something and runs on.
async fn changed(engine: &Engine, image: &Image, id: &str) -> Container {
    let script = "echo marker >/etc/marker; mkdir /new; echo x >/new/file; exec sleep 60";
    let builder = engine.container(id).image(image).args(["/bin/sh", "-c", script]);
    let container = builder.io(Io::null()).create().await.expect("created");
    container.start().await.expect("started");
    // What it does, it does in its own time.
    loop {
        let changes = container.changes().await.expect("changes");
        if changes.iter().any(|change| change.to_string() == "A /new/file") {
            return container;
        }
        tokio::task::yield_now().await;
    }
}

async fn exit_code(engine: &Engine, image: &Image, id: &str, script: &str) -> u32 {
    let builder = engine.container(id).image(image).args(["/bin/sh", "-c", script]);
    let container = builder.io(Io::null()).create().await.expect("created");
    container.run().await.expect("run").code
}

const CHECK: &str = "read word </etc/marker && test \"$word\" = marker && test \"$MODE\" = made && test -e /new/file";

#[tokio::test(flavor = "multi_thread")]
async fn a_container_becomes_an_image() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let engine = Engine::open(folder.path().join("one")).await.expect("an engine");
    let base_name = format!("{}/demo/host:latest", registry.host());
    let base = engine.pull(&base_name).await.expect("pulled");
    let container = changed(&engine, &base, "c").await;

    let name = format!("{}/demo/made:1", registry.host());
    let made = container
        .commit(&name)
        .author("somebody")
        .comment("a word")
        .instruction("ENV MODE=made".parse().expect("an instruction"))
        .await
        .expect("committed");
    assert_eq!(container.state().await.expect("a state").status, Status::Running);
    assert_eq!(made.name(), name);
    assert_eq!(made.manifest().layers().len(), base.manifest().layers().len() + 1);
    let history = made.config().history().as_ref().expect("a history");
    assert_eq!(
        history.last().and_then(|entry| entry.comment().as_deref()),
        Some("a word")
    );
    assert_eq!(made.config().architecture(), base.config().architecture());
    container.delete(DeleteMode::Force).await.expect("deleted");

    // It needs neither the container nor the name of its base.
    engine.remove_image(&base_name).await.expect("removed");
    let report = engine.collect().await.expect("collected");
    assert_eq!(exit_code(&engine, &made, "d", CHECK).await, 0, "{report:?}");
    assert!(
        engine
            .snapshotter
            .walk()
            .await
            .expect("a list")
            .iter()
            .all(|info| !info.key.starts_with("diff-")),
        "nothing is left of the comparison"
    );

    // And it can go elsewhere.
    let reference = name.parse().expect("a reference");
    push_image(&*engine.pusher, &*engine.content, &reference, made.target())
        .await
        .expect("pushed");
    let other = Engine::open(folder.path().join("other")).await.expect("an engine");
    let pulled = other.pull(&name).await.expect("pulled");
    assert_eq!(pulled.target().digest(), made.target().digest());
    assert_eq!(exit_code(&other, &pulled, "e", CHECK).await, 0);
    match require_tool("skopeo") {
        Err(why) => skip(&why),
        Ok(skopeo) => {
            let mut command = std::process::Command::new(skopeo);
            command.args(["copy", "--src-tls-verify=false", &format!("docker://{name}")]);
            command.arg(format!("oci:{}:t", folder.path().join("layout").display()));
            // The registry is served by this runtime.
            let copied = tokio::task::block_in_place(|| command.output().expect("skopeo"));
            assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_changes_make_the_same_image() {
    let Some(crate::support::Site {
        folder: _folder,
        engine,
        image,
    }) = crate::support::Site::open().await
    else {
        return;
    };
    let epoch = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let mut digests = Vec::new();
    for _ in 0..2 {
        let container = changed(&engine, &image, "same").await;
        let made = container
            .commit("example.localhost/made")
            .created(epoch)
            .compression(Compression::Zstd)
            .without_pause()
            .await
            .expect("committed");
        digests.push(made.target().digest().clone());
        container.delete(DeleteMode::Force).await.expect("deleted");
    }
    assert_eq!(digests[0], digests[1]);
    let names: Vec<_> = engine
        .images()
        .await
        .expect("a list")
        .iter()
        .map(|image| image.name().to_owned())
        .collect();
    assert!(names.contains(&"example.localhost/made:latest".to_owned()), "{names:?}");

    let container = changed(&engine, &image, "orphan").await;
    let error = container.commit("Not A Name").await.expect_err("no name");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    engine.remove_image(image.name()).await.expect("removed");
    let error = container.commit("example.localhost/made").await.expect_err("no base");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    container.delete(DeleteMode::Force).await.expect("deleted");
    let error = container.changes().await.expect_err("no container");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_container_runs_is_kept_only_if_asked() {
    let Some(crate::support::Site {
        folder: _folder,
        engine,
        image,
    }) = crate::support::Site::open().await
    else {
        return;
    };
    let container = changed(&engine, &image, "c").await;
    let usual = container.commit("example.localhost/usual").await.expect("committed");
    assert_eq!(
        usual.config().config(),
        image.config().config(),
        "the base's config is kept"
    );
    let asked = container.commit("example.localhost/asked").with_process();
    let asked = asked
        .instruction("ENV MODE=made".parse().expect("an instruction"))
        .await;
    let asked = asked.expect("committed");
    let config = asked.config().config().as_ref().expect("a config");
    let command = config.cmd().as_ref().expect("a command");
    assert_eq!(command[..2], ["/bin/sh", "-c"]);
    assert!(command[2].ends_with("exec sleep 60"), "{command:?}");
    assert_eq!(config.user().as_deref(), Some("0:0"));
    assert!(
        config
            .env()
            .as_ref()
            .expect("variables")
            .contains(&"MODE=made".to_owned())
    );
    container.delete(DeleteMode::Force).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_paused_when_the_program_was_killed_runs_on() {
    let Some(crate::support::Site { folder, engine, image }) = crate::support::Site::open().await else {
        return;
    };
    let sleeps = |id: &str| {
        let builder = engine.container(id).image(&image).args(["/bin/sleep", "60"]);
        builder.lifetime(longshore::Lifetime::Detached).io(Io::null())
    };
    for id in ["by-commit", "by-hand"] {
        let container = sleeps(id).create().await.expect("created");
        container.start().await.expect("started");
        container.pause().await.expect("paused");
    }
    // What a commit notes before it pauses a container, and takes away after.
    let notes = folder.path().join("pausing");
    std::fs::create_dir_all(&notes).expect("a folder");
    std::fs::write(notes.join("default+by-commit"), "").expect("a note");
    std::fs::write(notes.join("default+gone"), "").expect("a note");
    drop(engine);
    let engine = Engine::open(folder.path()).await.expect("an engine");
    assert_eq!(std::fs::read_dir(&notes).expect("a folder").count(), 0);
    for (id, status) in [("by-commit", Status::Running), ("by-hand", Status::Paused)] {
        let container = engine.find_container(id).await.expect("it is here");
        assert_eq!(container.state().await.expect("a state").status, status, "{id}");
        container.delete(DeleteMode::Force).await.expect("deleted");
    }
}
