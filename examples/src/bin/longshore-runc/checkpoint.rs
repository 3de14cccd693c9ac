//! `checkpoint` and `restore`, by CRIU.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use longshore_runtime::{
    CheckpointKind, CheckpointRequest, CriuCgroups, CriuFlags, CriuOptions, DeleteMode, Executor, ProcessId,
    RestoreRequest, Status,
};

use crate::args::Arguments;
use crate::attend::{Connection, Presence};
use crate::failure::{Failure, Outcome, errno_text};
use crate::global::{Global, container_id};
use crate::lifecycle::{become_reaper, clean_up, load_bundle};
use crate::{block_on, given, refuse};

/// The directory of the images, if none is said.
const IMAGES: &str = "checkpoint";

/// `longshore-runc checkpoint`
pub(crate) fn checkpoint(global: &Global, arguments: &Arguments) -> Outcome {
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        let status = executor.state(&id).await?.status;
        if matches!(status, Status::Created | Status::Stopped) {
            return Err(Failure::new(format!(
                "Container cannot be checkpointed in {status} state"
            )));
        }
        let request = request(arguments)?;
        let is_over = request.kind == CheckpointKind::Stop;
        executor.checkpoint(&id, request).await?;
        if is_over && let Err(error) = executor.delete(&id, DeleteMode::Force).await {
            global.log.warn(&crate::failure::text(&error.into()));
        }
        Ok(0)
    })
}

/// `longshore-runc restore`
pub(crate) fn restore(global: &Global, arguments: &Arguments) -> Outcome {
    bring_back(global, arguments).map_err(|failure| failure.of_command("runc restore failed", 1))
}

fn bring_back(global: &Global, arguments: &Arguments) -> Outcome {
    refuse(arguments, &["no-pivot"])?;
    let (bundle, spec) = load_bundle(global, arguments.filled("bundle"))?;
    let id = container_id(arguments.id())?;
    let presence = if arguments.is_on("detach") {
        Presence::Detached
    } else {
        Presence::Foreground
    };
    let criu = criu_options(arguments)?;
    let mut connection = Connection::new(arguments, presence)?;
    become_reaper(arguments, presence)?;
    let has_terminal = spec.process().as_ref().and_then(|process| process.terminal());
    let io = connection.io(has_terminal.unwrap_or(false))?;
    let mut request = RestoreRequest::new(id.clone(), bundle, spec, io, criu).reaper(presence.reaper());
    request.lsm_profile = arguments.filled("lsm-profile").map(str::to_owned);
    request.lsm_mount_context = arguments.filled("lsm-mount-context").map(str::to_owned);
    block_on(async {
        let executor = global.executor()?;
        let state = executor.restore(request).await?;
        let attended = async {
            let pid = state.pid.context("the restored process has ended")?;
            connection.announce(pid)?;
            connection
                .attend(&executor, (&id, &ProcessId::Init), pid, &global.log)
                .await
        };
        let attended = attended.await;
        if attended.is_err() || presence == Presence::Foreground {
            clean_up(global, &executor, &id).await;
        }
        Ok(attended?)
    })
}

fn request(arguments: &Arguments) -> anyhow::Result<CheckpointRequest> {
    let criu = criu_options(arguments)?;
    let parent = arguments
        .filled("parent-path")
        .map(|parent| parent_of(&criu.images, parent))
        .transpose()?;
    let mut request = CheckpointRequest::new(criu);
    request.kind = match (arguments.is_on("pre-dump"), arguments.is_on("leave-running")) {
        (true, _) => CheckpointKind::PreDump,
        (false, true) => CheckpointKind::LeaveRunning,
        (false, false) => CheckpointKind::Stop,
    };
    request.parent = parent;
    request.page_server = arguments.filled("page-server").map(page_server).transpose()?;
    request.ready = match arguments.filled("status-fd").filter(|number| *number != "-1") {
        Some(number) => {
            Some(given::numbered(number).with_context(|| format!("invalid --status-fd argument {number}"))?)
        }
        None => None,
    };
    Ok(request)
}

/// The flags that both commands have. The images' directory is made, whole, as runc makes it.
fn criu_options(arguments: &Arguments) -> anyhow::Result<CriuOptions> {
    let images = std::path::absolute(arguments.filled("image-path").unwrap_or(IMAGES))?;
    std::fs::create_dir_all(&images)
        .map_err(|error| anyhow::anyhow!("mkdir {}: {}", images.display(), errno_text(&error)))?;
    let mut criu = CriuOptions::new(images);
    criu.work = arguments.filled("work-path").map(std::path::absolute).transpose()?;
    criu.cgroups = match arguments.filled("manage-cgroups-mode") {
        None => CriuCgroups::Default,
        Some("ignore") => CriuCgroups::Ignore,
        Some("soft") => CriuCgroups::Soft,
        Some("full") => CriuCgroups::Full,
        Some("strict") => CriuCgroups::Strict,
        Some(_) => bail!("Invalid manage-cgroups-mode value"),
    };
    for (flag, bit) in [
        ("tcp-established", CriuFlags::TCP_ESTABLISHED),
        ("tcp-skip-in-flight", CriuFlags::TCP_SKIP_IN_FLIGHT),
        ("link-remap", CriuFlags::LINK_REMAP),
        ("ext-unix-sk", CriuFlags::EXTERNAL_UNIX_SOCKETS),
        ("shell-job", CriuFlags::SHELL_JOB),
        ("file-locks", CriuFlags::FILE_LOCKS),
        ("auto-dedup", CriuFlags::AUTO_DEDUP),
        ("lazy-pages", CriuFlags::LAZY_PAGES),
    ] {
        criu.flags.set(bit, arguments.is_on(flag));
    }
    for namespace in arguments.values("empty-ns") {
        // Which it always is: network devices are not this program's.
        if namespace != "network" {
            bail!("namespace \"{namespace}\" is not supported");
        }
    }
    Ok(criu)
}

/// A parent is told relative to the images, and must be there.
fn parent_of(images: &Path, parent: &str) -> anyhow::Result<PathBuf> {
    let relative = Path::new(parent);
    if relative.is_absolute() {
        bail!("--parent-path must be relative");
    }
    let found = std::fs::metadata(images.join(relative));
    let found =
        found.map_err(|error| anyhow::anyhow!("invalid --parent-path: stat {parent}: {}", errno_text(&error)))?;
    if !found.is_dir() {
        bail!("invalid --parent-path: {parent} is not a directory");
    }
    Ok(relative.to_owned())
}

fn page_server(address: &str) -> anyhow::Result<(String, u16)> {
    let usage = "Use --page-server ADDRESS:PORT to specify page server";
    let (host, port) = address.rsplit_once(':').context(usage)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || port.is_empty() {
        bail!(usage);
    }
    Ok((host.to_owned(), port.parse().context("Invalid port number")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Order;

    fn asked(words: &[&str]) -> anyhow::Result<CheckpointRequest> {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(place.path().join("parent")).expect("made");
        let images = place.path().join("images");
        let images = format!("--image-path={}", images.display());
        let words = words.iter().map(|word| (*word).to_owned()).chain([images]);
        let read = Arguments::read(crate::commands::CHECKPOINT_FLAGS, Order::Anywhere, words);
        request(&read.expect("a command line"))
    }

    #[test]
    fn flags_become_what_criu_is_asked_for() {
        let plain = asked(&["id"]).expect("valid");
        assert_eq!(
            (plain.kind, plain.criu.flags),
            (CheckpointKind::Stop, CriuFlags::empty())
        );
        let rich = asked(&[
            "--leave-running",
            "--tcp-established",
            "--file-locks",
            "--parent-path=../parent",
            "--page-server=[::1]:27",
            "--manage-cgroups-mode=ignore",
            "--empty-ns=network",
            "id",
        ]);
        let rich = rich.expect("valid");
        assert_eq!(rich.kind, CheckpointKind::LeaveRunning);
        assert_eq!(rich.criu.flags, CriuFlags::TCP_ESTABLISHED | CriuFlags::FILE_LOCKS);
        assert_eq!(rich.parent.as_deref(), Some(Path::new("../parent")));
        assert_eq!(rich.page_server, Some(("::1".to_owned(), 27)));
        assert_eq!(rich.criu.cgroups, CriuCgroups::Ignore);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, told) in [
            (["--parent-path=/parent", "id"], "--parent-path must be relative"),
            (["--parent-path=none", "id"], "--parent-path"),
            (["--page-server=host", "id"], "ADDRESS:PORT"),
            (["--manage-cgroups-mode=x", "id"], "manage-cgroups-mode"),
            (["--empty-ns=pid", "id"], "not supported"),
            (["--status-fd=999", "id"], "--status-fd"),
        ] {
            let error = asked(&words).expect_err("refused");
            assert!(format!("{error:#}").contains(told), "{words:?}: {error:#}");
        }
    }
}
