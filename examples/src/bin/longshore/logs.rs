//! `logs`: the output of a container that runs in the background.

use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use longshore::Status;
use longshore::runtime::{ContainerId, LogReader, LogRecord, OutputStream};

use crate::arguments::{Logs, Tail};
use crate::events::moment;
use crate::kept::Kept;
use crate::open::Site;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is asked for.
struct Wanted {
    since: Option<SystemTime>,
    until: Option<SystemTime>,
}

impl Wanted {
    fn has(&self, record: &LogRecord) -> bool {
        self.since.is_none_or(|since| record.time >= since) && self.until.is_none_or(|until| record.time <= until)
    }
}

pub(crate) async fn print(site: &Site, logs: Logs) -> Result<u8> {
    let id = ContainerId::new(&logs.container)?;
    let (executor, path) = (site.executor()?, site.log(&id));
    if !path.exists() {
        executor.state(&id).await?;
        let container = site.engine().await?.find_container(&logs.container).await?;
        if Kept::on(&container.record().await?)?.is_in_journal() {
            anyhow::bail!("container {id} says it to systemd's journal; `journalctl CONTAINER_NAME={id}` has it");
        }
        anyhow::bail!("container {id} has no log: it ran in the foreground, or with --log-driver none");
    }
    let wanted = Wanted {
        since: logs.since.as_deref().map(moment).transpose()?,
        until: logs.until.as_deref().map(moment).transpose()?,
    };
    let mut reader = LogReader::open(path)?;
    if let Tail::Last(count) = logs.tail {
        reader = reader.tail(count, |record| wanted.has(record))?;
    }
    let mut screen = Screen {
        timestamps: logs.timestamps,
        amid: [false; 2],
    };
    loop {
        // Both are asked before reading to the end, so that the last lines are not missed.
        let ended = !logs.follow
            || (executor
                .state(&id)
                .await
                .map_or(true, |state| state.status == Status::Stopped)
                && !reader.is_written());
        while let Some(record) = reader.next_record()? {
            if wanted.has(&record) && !screen.show(&record)? {
                return Ok(0);
            }
        }
        if ended || wanted.until.is_some_and(|until| SystemTime::now() > until) {
            return Ok(0);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Where records are shown: each stream where it belongs.
struct Screen {
    timestamps: bool,
    /// Whether the last record of a stream was a part of a line.
    amid: [bool; 2],
}

impl Screen {
    /// Shows one; tells whether somebody still reads.
    fn show(&mut self, record: &LogRecord) -> Result<bool> {
        let amid = &mut self.amid[usize::from(record.stream == OutputStream::Stderr)];
        let mut text = Vec::new();
        if self.timestamps && !*amid {
            write!(text, "{} ", record.timestamp())?;
        }
        *amid = !record.text.ends_with(b"\n");
        text.extend_from_slice(&record.text);
        let written = match record.stream {
            OutputStream::Stdout => write(std::io::stdout().lock(), &text),
            OutputStream::Stderr => write(std::io::stderr().lock(), &text),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }
}

fn write(mut to: impl Write, text: &[u8]) -> std::io::Result<()> {
    to.write_all(text)?;
    to.flush()
}
