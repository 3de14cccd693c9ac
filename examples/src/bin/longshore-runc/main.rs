//! A drop-in for `runc`: the same commands, flags, output, exit codes and error texts, over [`longshore_runtime`].
//!
//! It shows the executor alone: no images, no store, no daemon. It knows no flag that it ignores: what is not supported yet is
//! an error. Its state directory is the executor's own (`/run/longshore-runc`, one directory a container with `state.json`); runc's containers
//! are not seen.
//!
//! Where it differs from runc on purpose: without a terminal, the container has this program's own streams instead of pipes that this program copies; `exec` takes the
//! process that the container was created with, not what `config.json` says by now; messages are in UTC.
#![forbid(unsafe_code)]

mod args;
mod attend;
mod bundle;
mod capabilities;
mod checkpoint;
mod commands;
mod console;
mod events;
mod exec;
mod failure;
mod features;
mod given;
mod global;
mod help;
mod lifecycle;
mod log;
mod notify;
mod query;
mod resources;
mod signals;
mod warnings;

use std::future::Future;
use std::io::Write;

use args::{Arguments, Order, Unreadable};
use commands::{COMMANDS, Command};
use failure::{Failure, Outcome, Voice};
use global::Global;
use log::{Form, Log, Verbosity};

fn main() {
    let code = match words() {
        Ok(words) => run(words),
        Err(failure) => {
            Log::stderr(Form::Text, Verbosity::Normal).fatal(&failure.message);
            failure.code
        }
    };
    // Threads that still read standard input must not hold the program up.
    std::process::exit(code.into());
}

fn words() -> Result<Vec<String>, Failure> {
    std::env::args_os()
        .skip(1)
        .map(|word| {
            word.into_string()
                .map_err(|word| Failure::new(format!("not UTF-8: {}", word.display())))
        })
        .collect()
}

fn run(words: Vec<String>) -> u8 {
    let flags = match Arguments::read(global::FLAGS, Order::BeforeArguments, words) {
        Ok(flags) => flags,
        Err(unreadable) => {
            return misused(
                &Log::stderr(Form::Text, Verbosity::Normal),
                unreadable,
                &help::program(),
            );
        }
    };
    if flags.is_on("version") {
        print(&version());
        return 0;
    }
    let (name, rest) = match flags.rest().split_first() {
        Some((name, rest)) if !flags.is_on("help") => (name.as_str(), rest),
        _ => return print(&help::program()),
    };
    let global = match Global::new(&flags) {
        Ok(global) => global,
        Err((log, failure)) => return fail(&log, &failure),
    };
    if let Ok(log) = global.log.try_clone() {
        warnings::to_log(log);
    }
    let (name, wants_help) = match (name, rest) {
        ("help" | "h", []) => return print(&help::program()),
        ("help" | "h", [topic, ..]) => (topic.as_str(), true),
        _ => (name, false),
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return fail(
            &global.log,
            &Failure {
                code: 3,
                ..Failure::new(format!("No help topic for '{name}'"))
            },
        );
    };
    if wants_help {
        print(&help::command(command))
    } else {
        perform(&global, command, rest)
    }
}

fn perform(global: &Global, command: &Command, words: &[String]) -> u8 {
    let arguments = match Arguments::read(command.flags, command.order, words.iter().cloned()) {
        Ok(arguments) => arguments,
        Err(unreadable) => return misused(&global.log, unreadable, &help::command(command)),
    };
    if let Some(complaint) = command.arity.complaint(command.name, arguments.rest().len()) {
        print(&format!("Incorrect Usage.\n\n{}", help::command(command)));
        return fail(&global.log, &Failure::new(format!("{}: {complaint}", program_name())));
    }
    match (command.run)(global, &arguments) {
        Ok(code) => code,
        Err(failure) => fail(&global.log, &failure),
    }
}

fn misused(log: &Log, unreadable: Unreadable, help: &str) -> u8 {
    match unreadable {
        Unreadable::Help => print(help),
        Unreadable::Usage(complaint) => {
            print(&format!("Incorrect Usage: {complaint}\n\n{help}"));
            fail(log, &Failure::new(complaint))
        }
    }
}

fn fail(log: &Log, failure: &Failure) -> u8 {
    match failure.voice {
        Voice::Log => log.fatal(&failure.message),
        Voice::Container => log.fatal_in_plain_words(&failure.message),
    }
    failure.code
}

fn print(text: &str) -> u8 {
    // A reader that has gone away has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

/// As it was called.
fn program_name() -> String {
    std::env::args_os().next().map_or_else(
        || env!("CARGO_BIN_NAME").into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn version() -> String {
    format!(
        "{} version {}\ncommit: {}\nspec: {}\n",
        env!("CARGO_BIN_NAME"),
        env!("CARGO_PKG_VERSION"),
        option_env!("LONGSHORE_COMMIT").unwrap_or("unknown"),
        longshore_bundle::SPEC_VERSION
    )
}

/// Runs a command's future on this thread; the executor has threads for what blocks.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(future)
}

/// Refuses flags that are known and not supported yet. Said with the value that means nothing (`--preserve-fds 0`), they are none.
fn refuse(arguments: &Arguments, unsupported: &[&str]) -> Outcome {
    for flag in unsupported {
        if arguments
            .filled(flag)
            .is_some_and(|value| value != "0" && value != "false")
        {
            return Err(Failure::new(format!("--{flag} is not supported yet: leave it out")));
        }
    }
    Ok(0)
}
