use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::outside::{self, Root, text};
use super::{CLONE_NEWNET, DESCRIPTORS, Directories, check_mounts, check_version, config, rootfs};
use crate::checkpoint::{CheckpointKind, CheckpointRequest, CriuFlags, Kind, Options, Service, request};
use crate::host::io_error;
use crate::local::container::Container;
use crate::local::record::Record;
use crate::local::{Shared, wrong_status};
use crate::{Error, Result, Status};

const LOG: &str = "dump.log";

/// Saves a container. Blocks.
pub(in crate::local) fn dump(shared: &Shared, container: &Container, asked: CheckpointRequest) -> Result<()> {
    if !matches!(container.status(), Status::Running | Status::Paused) {
        return Err(wrong_status(container, "checkpoint"));
    }
    let record = container.record()?;
    check_mounts(&record.spec)?;
    check_version(&asked.criu)?;
    check_features(&asked)?;
    let directories = Directories::open(&asked.criu, LOG)?;
    let options = options(shared, (container, &record), &asked, &directories)?;
    if asked.kind != CheckpointKind::PreDump {
        let path = asked.criu.images.join(DESCRIPTORS);
        let streams = serde_json::to_vec(&streams(container.init.pid)).map_err(std::io::Error::from);
        streams
            .and_then(|streams| fs::write(&path, streams))
            .map_err(io_error(format!("write {}", path.display())))?;
    }
    let kind = match asked.kind {
        CheckpointKind::PreDump => Kind::PreDump,
        CheckpointKind::Stop | CheckpointKind::LeaveRunning => Kind::Dump,
    };
    let service = Service::start(&asked.criu.program, None, &[])?;
    let mut ready = asked.ready;
    let talked = service.talk(kind, &request(kind, &options), |response, _| {
        if response.notification == "status-ready"
            && let Some(ready) = ready.take()
        {
            rustix::io::write(&ready, &[0]).map_err(io_error("tell that pages can be asked for"))?;
        }
        Ok(())
    });
    talked.map_err(|error| directories.explain(error))?;
    if asked.kind == CheckpointKind::Stop {
        container.wait_until_recorded();
    }
    Ok(())
}

fn check_features(asked: &CheckpointRequest) -> Result<()> {
    let wants_lazy_pages = asked.criu.flags.contains(CriuFlags::LAZY_PAGES);
    if asked.kind != CheckpointKind::PreDump && !wants_lazy_pages {
        return Ok(());
    }
    let has = Service::answer(&asked.criu.program, Kind::FeatureCheck)?;
    let missing = match (asked.kind, wants_lazy_pages) {
        (CheckpointKind::PreDump, _) if !has.has_dirty_memory => "MemTrack",
        (_, true) if !has.has_lazy_pages => "LazyPages",
        _ => return Ok(()),
    };
    Err(Error::Criu {
        reason: format!("criu is missing features: [{missing}]"),
    })
}

fn options(
    shared: &Shared,
    (container, record): (&Container, &Record),
    asked: &CheckpointRequest,
    directories: &Directories,
) -> Result<Options> {
    let spec = &record.spec;
    let mut mounts = Vec::new();
    if asked.kind != CheckpointKind::PreDump {
        let root = Root::open(Path::new(&format!("/proc/{}/root", container.init.pid)))?;
        let mode = shared.cgroups.host().mode();
        for mount in outside::mounts(spec, &record.bundle, &container.cgroup().location(), mode) {
            let inside = text(&root.real(&mount.inside))?;
            mounts.push((inside.clone(), inside));
        }
        let masked = spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_ref());
        for path in masked.into_iter().flatten() {
            let inside = Path::new(&format!("/proc/{}/root", container.init.pid)).join(path.trim_start_matches('/'));
            // Directories are covered by a filesystem of their own.
            if fs::symlink_metadata(inside).is_ok_and(|found| !found.is_dir()) {
                mounts.push((path.clone(), "/dev/null".to_owned()));
            }
        }
    }
    Ok(Options {
        images: directories.images.as_raw_fd(),
        work: directories.work.as_ref().map(AsRawFd::as_raw_fd),
        log: LOG,
        root: text(&rootfs(&record.bundle, spec)?)?,
        pid: Some(container.init.pid),
        leave_running: asked.kind == CheckpointKind::LeaveRunning,
        flags: asked.criu.flags,
        cgroups: asked.criu.cgroups,
        empty_namespaces: CLONE_NEWNET,
        freezer: freezer(container),
        page_server: asked.page_server.clone(),
        parent: asked.parent.as_deref().map(text).transpose()?,
        config: config(&asked.criu, spec),
        mounts,
        external: outside::external(spec)?,
        ..Options::default()
    })
}

/// The group by which CRIU stops all of it at once: v1's freezer, or v2's own.
fn freezer(container: &Container) -> Option<String> {
    let cgroup = container.cgroup();
    let places = cgroup.location().places;
    let can_freeze = |path: &Path| {
        ["freezer.state", "cgroup.freeze"]
            .iter()
            .any(|file| path.join(file).exists())
    };
    let mut paths = places.iter().map(|place| place.mount.join(&place.path));
    paths.find(|path| can_freeze(path))?.to_str().map(str::to_owned)
}

/// What its streams are: `pipe:[5]`, `/dev/null`, ...
fn streams(pid: i32) -> Vec<String> {
    let stream = |number| fs::read_link(format!("/proc/{pid}/fd/{number}"));
    (0..3)
        .map(|number| stream(number).map_or(String::new(), |name| name.to_string_lossy().into_owned()))
        .collect()
}
