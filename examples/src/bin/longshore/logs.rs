//! `logs`: the output of a container that runs in the background.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use longshore::Status;
use longshore::runtime::ContainerId;

use crate::arguments::Logs;
use crate::open::Site;

pub(crate) async fn print(site: &Site, logs: Logs) -> Result<u8> {
    let id = ContainerId::new(&logs.container)?;
    let path = site.log(&id);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            site.executor()?.state(&id).await?;
            anyhow::bail!("container {id} ran in the foreground: its output went where it was started from");
        }
        outcome => outcome.with_context(|| format!("opening {}", path.display()))?,
    };
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        // The state is asked before reading to the end, so that the last lines are not missed.
        let ended = !logs.follow
            || site
                .executor()?
                .state(&id)
                .await
                .map_or(true, |s| s.status == Status::Stopped);
        while reader.read_line(&mut line)? > 0 {
            if !line.ends_with('\n') {
                // Half a line: its rest is still to come.
                break;
            }
            show(&line, logs.timestamps)?;
            line.clear();
        }
        if ended {
            return Ok(0);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn show(line: &str, timestamps: bool) -> Result<()> {
    let record: serde_json::Value = serde_json::from_str(line).context("the log has a line that is not JSON")?;
    let field = |name: &str| record.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let text = match timestamps {
        true => format!("{} {}", field("time"), field("log")),
        false => field("log").to_owned(),
    };
    match field("stream") {
        "stderr" => std::io::stderr().write_all(text.as_bytes())?,
        _ => std::io::stdout().write_all(text.as_bytes())?,
    }
    Ok(())
}
