use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use futures::stream::{BoxStream, StreamExt, try_unfold};
use longshore_runtime::{Io, LogFile, LogReader, LogRecord, OutputStream, Status};

use crate::create::{ContainerBuilder, blocking};
use crate::error::At;
use crate::{Container, Error, Result};

/// The fact on a container's record that says where its log is.
const LOG: &str = "longshore.log";
/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How many records are read at once.
const BATCH: usize = 256;

/// Which part of a container's log is asked for: all that there is, unless told.
#[derive(Clone, Debug, Default)]
#[must_use = "it only says what is asked for"]
pub struct LogOptions {
    follow: Follow,
    tail: Option<usize>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    only: Option<OutputStream>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Follow {
    #[default]
    No,
    UntilItEnds,
}

impl LogOptions {
    /// The same, and what comes until the container ends.
    pub fn follow(mut self) -> Self {
        self.follow = Follow::UntilItEnds;
        self
    }

    /// Only so many records before the present end, and what follows.
    pub fn tail(mut self, records: usize) -> Self {
        self.tail = Some(records);
        self
    }

    /// Only from a time on.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Only up to a time.
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// Only one of the two streams.
    pub fn only(mut self, stream: OutputStream) -> Self {
        self.only = Some(stream);
        self
    }

    fn have(&self, record: &LogRecord) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
            && self.only.is_none_or(|stream| record.stream == stream)
    }
}

impl ContainerBuilder {
    /// Sends its output to a log, and notes where that is, for [`Container::logs`]: its [`io`](Self::io) is an [`Io::log`].
    pub fn log(self, log: LogFile) -> Self {
        let noted = serde_json::json!(&log);
        self.io(Io::log(log)).extension(LOG, noted)
    }
}

impl Container {
    /// Where its log is, if it was [made with one](ContainerBuilder::log): a restart that is to go on with it gets an [`Io::log`] of it. Deleting the container leaves it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the container does not exist; [`Invalid`](crate::ErrorKind::Invalid) when its record is not as it was written.
    pub async fn log_file(&self) -> Result<Option<LogFile>> {
        let noted = self.record().await?.extensions.remove(LOG);
        noted
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| Error::Invalid {
                what: format!("the log of container '{}'", self.id()),
                reason: format!("its record does not say where it is: {error}"),
            })
    }

    /// The records of its log, in their order. A stream that follows ends when the container has ended and its last record is told.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a container without a log; those of [`log_file`](Self::log_file), and when the log can't be read.
    pub async fn logs(&self, options: LogOptions) -> Result<BoxStream<'static, Result<LogRecord>>> {
        let Some(log) = self.log_file().await? else {
            return Err(Error::Invalid {
                what: format!("the log of container '{}'", self.id()),
                reason: "it was made without one; make it with `.log(LogFile::new(path))`".to_owned(),
            });
        };
        let doing = format!("reading the log of container '{}'", self.id());
        let asked = options.clone();
        let open = move || {
            let reader = LogReader::open(log.path())?;
            match asked.tail {
                Some(count) => reader.tail(count, |record| asked.have(record)),
                None => Ok(reader),
            }
        };
        let state = Reading {
            reader: blocking(open).await.at(doing)?,
            container: self.clone(),
            options,
            ready: VecDeque::new(),
            rest: Rest::Unknown,
        };
        Ok(try_unfold(state, Reading::next).boxed())
    }
}

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Unknown,
    /// Only what is read already.
    None,
}

/// Whether what there is by now is all that there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// The container has ended; what it said last may be on its way.
    WhenWritten,
    Yes,
}

struct Reading {
    reader: LogReader,
    container: Container,
    options: LogOptions,
    ready: VecDeque<LogRecord>,
    rest: Rest,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(LogRecord, Self)>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some((record, self)));
            }
            if self.rest == Rest::None {
                return Ok(None);
            }
            // Asked before the log is read to its end, so that nothing is missed.
            let ended = self.ended().await;
            let doing = format!("reading the log of container '{}'", self.container.id());
            let read;
            (self, read) = blocking(move || self.read(ended)).await.at(doing)?;
            if read == 0 && self.rest == Rest::Unknown {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn ended(&self) -> Ended {
        let passed = |until| SystemTime::now() > until;
        if self.options.follow == Follow::No || self.options.until.is_some_and(passed) {
            return Ended::Yes;
        }
        match self.container.state().await {
            Ok(state) if state.status != Status::Stopped => Ended::No,
            _ => Ended::WhenWritten,
        }
    }

    /// Reads some records, and tells how many, wanted or not.
    fn read(mut self, ended: Ended) -> longshore_runtime::Result<(Self, usize)> {
        let last = match ended {
            Ended::No => false,
            Ended::WhenWritten => !self.reader.is_written(),
            Ended::Yes => true,
        };
        for read in 0..BATCH {
            match self.reader.next_record()? {
                Some(record) if self.options.have(&record) => self.ready.push_back(record),
                Some(_) => {}
                None => {
                    if last {
                        self.rest = Rest::None;
                    }
                    return Ok((self, read));
                }
            }
        }
        Ok((self, BATCH))
    }
}
