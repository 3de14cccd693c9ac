//! `exec`: another process in a running container.

use anyhow::{Result, bail};
use longshore::ExecBuilder;
use longshore::runtime::Io;

use crate::arguments::Exec;
use crate::open::{Site, random_id};
use crate::run::environment;
use crate::terminal::{self, Screen};

pub(crate) async fn exec(site: &Site, exec: Exec) -> Result<u8> {
    if exec.tty && !terminal::is_terminal() {
        bail!("-t needs a terminal, and standard input is none; leave -t out");
    }
    let engine = site.engine().await?;
    let container = engine.find_container(&exec.container).await?;
    let (io, pty) = match exec.tty {
        true => {
            let (io, terminal) = Io::pty();
            (io, Some(terminal))
        }
        false => (Io::stdio(crate::run::own_streams(exec.interactive)?), None),
    };
    let exec_id = random_id()?;
    let mut builder: ExecBuilder = container.command(exec.command.clone()).id(&exec_id).io(io);
    for variable in exec.env.iter().filter_map(|variable| environment(variable)) {
        builder = builder.env(variable);
    }
    if let Some(directory) = exec.workdir {
        builder = builder.cwd(directory);
    }
    if let Some(user) = exec.user {
        builder = builder.user(user);
    }
    if exec.tty {
        builder = builder.terminal();
    }
    builder.spawn().await?;
    let exit = container.exec_exit(&exec_id);
    // From here on other commands may open the engine.
    drop((container, engine));
    let status = match pty {
        Some(terminal) => {
            // The terminal is given back whatever ends this program, but for SIGKILL.
            let signals = terminal::Signals::listen()?;
            let screen = Screen::connect(terminal.master().await?)?;
            let status = tokio::select! {
                status = exit => status,
                signal = signals.next() => return Ok(terminal::ended_by(signal)),
            };
            screen.finish();
            status
        }
        None => exit.await,
    };
    Ok(u8::try_from(status?.code).unwrap_or(255))
}
