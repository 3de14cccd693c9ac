//! `exec`: another process in a container.

use std::path::PathBuf;

use anyhow::{Context, bail};
use longshore_bundle::from_json;
use longshore_runtime::cgroup::SubGroup;
use longshore_runtime::{ExecRequest, Executor, ProcessId, Status, WhenPaused};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};

use crate::args::Arguments;
use crate::attend::{Connection, Presence};
use crate::failure::{Failure, Outcome, path_error, start_error};
use crate::global::{Global, container_id};
use crate::lifecycle::respell_scheduler;
use crate::{block_on, given};

/// `longshore-runc exec`
pub(crate) fn exec(global: &Global, arguments: &Arguments) -> Outcome {
    enter(global, arguments).map_err(|failure| failure.of_command("exec failed", 255))
}

fn enter(global: &Global, arguments: &Arguments) -> Outcome {
    container_id(arguments.id())?;
    let presence = if arguments.is_on("detach") {
        Presence::Detached
    } else {
        Presence::Foreground
    };
    let groups = groups(arguments)?;
    let given = given::preserved(arguments)?;
    let when_paused = if arguments.is_on("ignore-paused") {
        WhenPaused::Enter
    } else {
        WhenPaused::Refuse
    };
    // Before the executor's threads.
    let mut connection = Connection::new(arguments, presence)?;
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        let state = executor.state(&id).await?;
        match state.status {
            Status::Stopped => return Err(Failure::new("cannot exec in a stopped container")),
            Status::Paused if when_paused == WhenPaused::Refuse => {
                return Err(Failure::new(
                    "cannot exec in a paused container (use --ignore-paused to override)",
                ));
            }
            _ => {}
        }
        let process = match arguments.filled("process") {
            Some(path) => process_from_file(path.into(), &executor.spec(&id)?)?,
            None => {
                let spec = executor.spec(&id)?;
                let process = spec.process().clone().context("process property must not be empty")?;
                process_of_arguments(process, arguments)?
            }
        };
        let program = process.args().as_ref().and_then(|args| args.first()).cloned();
        let io = connection.io(process.terminal().unwrap_or(false))?;
        let exec_id = format!("exec-{}", std::process::id());
        let request = ExecRequest::new(exec_id.clone(), process, io)
            .descriptors(given)
            .when_paused(when_paused)
            .groups(groups)
            .reaper(presence.reaper());
        let pid = executor
            .exec(&id, request)
            .await
            .map_err(|error| start_error(error, program.as_deref()))?;
        connection.announce(pid)?;
        Ok(connection
            .attend(&executor, (&id, &ProcessId::Exec(exec_id)), pid, &global.log)
            .await?)
    })
}

/// `--cgroup`: one path for all hierarchies, or paths for controllers of v1, `controller[,controller...]:path`.
fn groups(arguments: &Arguments) -> anyhow::Result<Vec<SubGroup>> {
    let given: Vec<&str> = arguments.values("cgroup").collect();
    let one = |given: &&str, only: bool| {
        let (controllers, path) = match given.split_once(':') {
            None if only => (Vec::new(), *given),
            None => bail!("invalid --cgroup argument: {given} (missing <controller>: prefix)"),
            Some((controllers, path)) => (controllers.split(',').map(str::to_owned).collect(), path),
        };
        if controllers.iter().any(String::is_empty) {
            bail!("invalid --cgroup argument: {given} (empty <controller> prefix)");
        }
        let path = path.into();
        Ok(SubGroup { controllers, path })
    };
    given.iter().map(|group| one(group, given.len() == 1)).collect()
}

/// A file of `process`. One that names no user is the container's own.
fn process_from_file(path: PathBuf, spec: &Spec) -> anyhow::Result<Process> {
    let json = std::fs::read(&path).map_err(|error| path_error("open", &path, &error))?;
    let mut json: serde_json::Value =
        serde_json::from_slice(&json).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    if let (Some(fields), Some(own)) = (json.as_object_mut(), spec.process()) {
        let own = serde_json::to_value(own.user())?;
        fields.entry("user").or_insert(own);
    }
    respell_scheduler(&mut json);
    let process: Process = from_json(&serde_json::to_vec(&json)?).with_context(|| path.display().to_string())?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        bail!("args must not be empty");
    }
    if process.cwd().as_os_str().is_empty() {
        bail!("Cwd property must not be empty");
    }
    if !process.cwd().is_absolute() {
        bail!("Cwd must be an absolute path");
    }
    Ok(process)
}

/// The container's own process, changed as the flags say.
fn process_of_arguments(mut process: Process, arguments: &Arguments) -> anyhow::Result<Process> {
    let args = arguments
        .rest()
        .get(1..)
        .filter(|args| !args.is_empty())
        .context("exec args cannot be empty")?;
    process.set_args(Some(args.to_vec()));
    if let Some(cwd) = arguments.filled("cwd") {
        if !cwd.starts_with('/') {
            bail!("Cwd must be an absolute path");
        }
        process.set_cwd(cwd.into());
    }
    if let Some(profile) = arguments.filled("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = arguments.filled("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(arguments.values("env").map(str::to_owned));
    process.set_env(Some(env));
    process.set_terminal(Some(arguments.is_on("tty")));
    if arguments.value("no-new-privs").is_some() {
        process.set_no_new_privileges(Some(arguments.is_on("no-new-privs")));
    }
    add_capabilities(&mut process, arguments)?;
    set_user(&mut process, arguments)?;
    Ok(process)
}

/// Adds to the bounding, effective and permitted sets, and to the ambient one if there are inheritable ones: without them it could not hold.
fn add_capabilities(process: &mut Process, arguments: &Arguments) -> anyhow::Result<()> {
    let mut added = Vec::new();
    for name in arguments.values("cap") {
        let capability: Capability = serde_json::from_value(name.into())
            .map_err(|_| anyhow::anyhow!("--cap: there is no capability \"{name}\"; write it like CAP_NET_ADMIN"))?;
        added.push(capability);
    }
    if added.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None)
            .set_effective(None)
            .set_permitted(None)
            .set_inheritable(None)
            .set_ambient(None);
        none
    });
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    if sets.inheritable().is_some() {
        let ambient = with(sets.ambient());
        sets.set_ambient(ambient);
    }
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

fn set_user(process: &mut Process, arguments: &Arguments) -> anyhow::Result<()> {
    let mut user = process.user().clone();
    if let Some(given) = arguments.filled("user") {
        let (uid, gid) = match given.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (given, None),
        };
        if let Some(gid) = gid {
            user.set_gid(gid.parse().with_context(|| format!("bad gid: \"{gid}\""))?);
        }
        user.set_uid(uid.parse().with_context(|| format!("bad uid: \"{uid}\""))?);
    }
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    for gid in arguments.values("additional-gids") {
        groups.push(
            gid.parse()
                .with_context(|| format!("additional-gids must be a positive number {gid}"))?,
        );
    }
    if !groups.is_empty() {
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Order;

    fn changed(words: &[&str]) -> anyhow::Result<Process> {
        let words = words.iter().map(|word| (*word).to_owned());
        let read = Arguments::read(crate::commands::EXEC_FLAGS, Order::BeforeArguments, words);
        process_of_arguments(Process::default(), &read.expect("a command line"))
    }

    #[test]
    fn flags_change_the_containers_own_process() {
        let process = changed(&[
            "-u", "5:6", "-g", "7", "-e", "A=b=c", "--cwd", "/srv", "-t", "id", "ls", "-l",
        ])
        .expect("valid");
        assert_eq!(process.args().as_deref(), Some(&["ls".to_owned(), "-l".to_owned()][..]));
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[7][..]));
        assert!(
            process
                .env()
                .as_ref()
                .is_some_and(|env| env.iter().any(|variable| variable == "A=b=c"))
        );
        assert_eq!((process.cwd().to_str(), process.terminal()), (Some("/srv"), Some(true)));
    }

    /// Elsewhere `-u 1` was root.
    #[test]
    fn cve_2026_30892_a_user_is_the_one_that_is_named() {
        for (given, uid, gid) in [("1", 1, 0), ("0:1", 0, 1), ("1:1", 1, 1), ("10", 10, 0), ("01", 1, 0)] {
            let process = changed(&["-u", given, "id", "id"]).expect("a user");
            assert_eq!((process.user().uid(), process.user().gid()), (uid, gid), "{given}");
        }
        for given in ["root", "-1", "1:", ":1", "1:1:1", "4294967296", "1 ", "0x1"] {
            assert!(changed(&["-u", given, "id", "id"]).is_err(), "{given}");
        }
    }

    #[test]
    fn a_file_without_a_user_is_the_containers() {
        let path = std::env::temp_dir().join(format!("longshore-process-{}.json", std::process::id()));
        let mut spec = Spec::default();
        let mut own = Process::default();
        own.set_user(serde_json::from_value(serde_json::json!({ "uid": 5, "gid": 6 })).expect("a user"));
        spec.set_process(Some(own));
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            let process = process_from_file(path.clone(), &spec).expect("a process");
            (process.user().uid(), process.user().gid())
        };
        let without = read(r#"{ "args": ["x"], "cwd": "/" }"#);
        let with = read(r#"{ "args": ["x"], "cwd": "/", "user": { "uid": 7 } }"#);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!((without, with), ((5, 6), (7, 0)));
    }

    #[test]
    fn a_schedulers_flag_has_the_specifications_name_or_the_other() {
        for name in ["SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"] {
            let mut json = serde_json::json!({ "scheduler": { "policy": "SCHED_BATCH", "flags": [name] } });
            respell_scheduler(&mut json);
            assert_eq!(json["scheduler"]["flags"][0], "SCHED_RESET_ON_FORK");
        }
        respell_scheduler(&mut serde_json::json!({ "args": [] }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["id"][..],
            &["-u", "x", "id", "ls"],
            &["-u", "1:y", "id", "ls"],
            &["-g", "-1", "id", "ls"],
            &["-c", "CAP_NONE", "id", "ls"],
            &["--cwd", "srv", "id", "ls"],
        ] {
            assert!(changed(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn capabilities_are_added_where_runc_adds_them() {
        let mut process = Process::default();
        process.set_capabilities(None);
        let words = ["-c", "CAP_NET_ADMIN", "id", "ls"].map(str::to_owned);
        let read = Arguments::read(crate::commands::EXEC_FLAGS, Order::BeforeArguments, words).expect("a command line");
        let process = process_of_arguments(process, &read).expect("valid");
        let sets = process.capabilities().clone().expect("sets");
        let has = |set: &Option<oci_spec::runtime::Capabilities>| {
            set.as_ref().is_some_and(|set| set.contains(&Capability::NetAdmin))
        };
        assert!(has(sets.bounding()) && has(sets.effective()) && has(sets.permitted()));
        assert!(!has(sets.ambient()) && !has(sets.inheritable()));
    }
}
