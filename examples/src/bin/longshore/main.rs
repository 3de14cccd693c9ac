//! Images and containers from the command line, composed in process: no daemon.
//!
//! One process at a time may hold an engine's root, so every command opens it as late and closes it as early as it can; a running container is
//! watched through the executor alone, which any number of processes may use.

mod arguments;
mod attach;
mod background;
mod commit;
mod containers;
mod content;
mod devices;
mod events;
mod exec;
mod images;
mod kept;
mod logs;
mod open;
mod output;
mod progress;
mod run;
mod start;
mod storage;
mod terminal;
mod top;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Command, SystemCommand};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Help and the version are no errors; what is one has Docker's exit code.
            let code = if told.use_stderr() { 125 } else { 0 };
            let _ = told.print();
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("longshore: no async runtime: {error}");
            return ExitCode::from(125);
        }
    };
    let outcome = runtime.block_on(dispatch(cli));
    // A thread that reads the terminal may wait for a key for ever.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("longshore: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// As Docker's: 127 when the container's command is not there, 126 when it can't be executed, 125 for all else.
fn exit_code(error: &anyhow::Error) -> u8 {
    use longshore::runtime::Error::Step;
    match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(Step { field, source, .. }) if field == "process.args" => match source.kind() {
            std::io::ErrorKind::NotFound => 127,
            _ => 126,
        },
        _ => 125,
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let site = open::Site::new(cli.root, cli.hosts_dir)?;
    let outcome = perform(&site, cli.command).await;
    site.flush_journal();
    outcome
}

async fn perform(site: &open::Site, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Pull(pull) => images::pull(site, pull).await,
        Command::Push(push) => transfer::push(site, push).await,
        Command::Tag(tag) => transfer::tag(site, tag).await,
        Command::Load(load) => transfer::load(site, load).await,
        Command::Save(save) => transfer::save(site, save).await,
        Command::Convert(convert) => transfer::convert(site, convert).await,
        Command::Referrers(referrers) => transfer::referrers(site, referrers).await,
        Command::Images(list) => images::list(site, list).await,
        Command::Rmi(remove) => images::remove(site, remove).await,
        Command::Commit(made) => commit::commit(site, made).await,
        Command::Diff(diff) => commit::diff(site, diff).await,
        Command::Run(run) => run::run(site, *run).await,
        Command::Ps(list) => containers::list(site, list).await,
        Command::Top(top) => top::top(site, top).await,
        Command::Exec(exec) => exec::exec(site, exec).await,
        Command::Logs(logs) => logs::print(site, logs).await,
        Command::Attach(attach) => attach::attach(site, attach).await,
        Command::Events(events) => events::print(site, events).await,
        Command::Start(start) => start::start(site, start).await,
        Command::Stop(stop) => containers::stop(site, stop).await,
        Command::Kill(kill) => containers::kill(site, kill).await,
        Command::Gc(collect) => storage::collect(site, collect).await,
        Command::Prune(prune) => storage::prune(site, prune).await,
        Command::Content(content) => content::content(site, content.command).await,
        Command::System(system) => match system.command {
            SystemCommand::Df => storage::usage(site).await,
            SystemCommand::Recover => storage::recover(site).await,
            SystemCommand::Prune(prune) => storage::prune(site, prune).await,
        },
        Command::Rm(remove) => containers::remove(site, remove).await,
    }
}
