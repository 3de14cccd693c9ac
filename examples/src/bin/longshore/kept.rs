//! How the output of a container in the background is kept: what `run` was told, and what `start` finds on the record.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use longshore::runtime::{Io, JournalLog, LogFile, LogFormat};
use serde::{Deserialize, Serialize};

use crate::arguments::{LogDriver, LogOption, Run, Size};

/// The fact on a container's record that holds this.
const LOG: &str = "longshore.log";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Kept {
    driver: LogDriver,
    max_size: Option<Size>,
    max_file: Option<u32>,
    /// Whether `longshore attach` may type.
    input: bool,
}

impl Kept {
    pub(crate) fn of(run: &Run) -> Result<Self> {
        let mut kept = Self {
            driver: run.log_driver,
            input: run.interactive,
            ..Self::default()
        };
        for option in &run.log_opt {
            match option {
                LogOption::MaxSize(given) => kept.max_size = Some(*given),
                LogOption::MaxFile(given) => kept.max_file = Some(given.get()),
            }
        }
        let in_files = matches!(kept.driver, LogDriver::JsonFile | LogDriver::K8sFile);
        if !in_files && !run.log_opt.is_empty() {
            bail!("--log-opt is for logs in files, json-file and k8s-file; leave it out");
        }
        if kept.max_size.is_none() && kept.max_file.is_some_and(|files| files != 1) {
            bail!("--log-opt max-file needs max-size: a file that is never full makes no room for another");
        }
        if run.detach && kept.input && !in_files {
            bail!(
                "-d and -i need a log in files: who keeps it hands on what `longshore attach` types; leave --log-driver out"
            );
        }
        Ok(kept)
    }

    /// What the record says; one that ran in the foreground has said nothing.
    pub(crate) fn on(record: &longshore::metadata::Container) -> Result<Self> {
        let fact = record.extensions.get(LOG).cloned();
        fact.map_or_else(|| Ok(Self::default()), serde_json::from_value)
            .with_context(|| format!("reading '{LOG}' of a container's record"))
    }

    pub(crate) fn fact(&self) -> (&'static str, serde_json::Value) {
        (LOG, serde_json::to_value(self).expect("words and numbers are JSON"))
    }

    /// Whether it is in the journal.
    pub(crate) fn is_in_journal(&self) -> bool {
        self.driver == LogDriver::Journald
    }

    /// The streams of a container of that name, with the log at this path, whose directory is made.
    pub(crate) fn io(&self, name: &str, path: PathBuf) -> Result<Io> {
        let form = match self.driver {
            LogDriver::JsonFile => LogFormat::Json,
            LogDriver::K8sFile => LogFormat::Cri,
            LogDriver::Journald => return Ok(Io::journald(JournalLog::new(name, name).tag(name))),
            LogDriver::None => return Ok(Io::null()),
        };
        std::fs::create_dir_all(path.parent().context("the log has no directory")?)?;
        let mut log = LogFile::new(path).format(form);
        if let Some(size) = self.max_size {
            log = log.rotate(size.0, self.max_file.unwrap_or(1));
        }
        Ok(match self.input {
            true => Io::log_with_input(log),
            false => Io::log(log),
        })
    }
}
