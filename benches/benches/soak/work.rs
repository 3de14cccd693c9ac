//! One of those who use the engine.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use longshore::{Container, DeleteMode, Engine, ErrorKind, Filter, Image, Io, Lifetime};

use crate::Counts;
use crate::random::Random;

/// How many containers each has at once.
const MOST: usize = 8;
const SIGKILL: i32 = 9;

/// What was done, and what went wrong though it should not have.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    done: Counts,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    fn count(&mut self, what: &'static str, outcome: Result<(), longshore::Error>) {
        match outcome {
            Ok(()) => *self.done.entry(what).or_default() += 1,
            // Another one removed the image meanwhile, say.
            Err(error) if refused(error.kind()) => *self.done.entry("refused").or_default() += 1,
            Err(error) => {
                let error = format!("{what}: {}", chain(&error));
                println!("{error}");
                *self.errors.entry(error).or_default() += 1;
            }
        }
    }
}

fn refused(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::FailedPrecondition)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        other
            .done
            .into_iter()
            .for_each(|(what, count)| *self.done.entry(what).or_default() += count);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.done
            .iter()
            .try_for_each(|(what, count)| write!(f, " {what} {count}"))?;
        write!(f, " errors {}", self.errors.values().sum::<u64>())
    }
}

/// Its containers and its chances.
#[derive(Debug)]
pub(crate) struct Worker {
    number: u64,
    engine: Engine,
    name: String,
    random: Random,
    image: Option<Image>,
    containers: Vec<Container>,
    made: u64,
}

impl Worker {
    pub(crate) fn new(number: u64, engine: Engine, name: String, random: Random) -> Self {
        Self {
            number,
            engine,
            name,
            random,
            image: None,
            containers: Vec::new(),
            made: 0,
        }
    }

    /// One thing, by chance.
    pub(crate) async fn step(&mut self, tally: &mut Tally) {
        match self.random.below(100) {
            0..35 if self.containers.len() < MOST => {
                let outcome = self.start().await;
                tally.count("start", outcome);
            }
            35..60 => self.with_one("exec", tally, Self::exec).await,
            60..65 => self.with_one("pause", tally, Self::pause).await,
            65..68 => tally.count("scrape", self.engine.metrics().await.map(drop)),
            68..70 => self.subscribe(tally).await,
            70..73 => {
                let outcome = self.pull().await;
                tally.count("pull", outcome);
            }
            73 => {
                self.image = None;
                tally.count("remove", self.engine.remove_image(&self.name).await);
            }
            74 => tally.count("collect", self.engine.collect().await.map(drop)),
            _ => self.end_one(tally).await,
        }
    }

    async fn pull(&mut self) -> Result<(), longshore::Error> {
        self.image = Some(self.engine.pull(&self.name).await?);
        Ok(())
    }

    /// A container that ends soon, by itself or because somebody ends it.
    async fn start(&mut self) -> Result<(), longshore::Error> {
        if self.image.is_none() {
            self.pull().await?;
        }
        let image = self.image.clone().expect("it was pulled");
        self.made += 1;
        let lines = ["exit 3", "echo out; echo err >&2", "sleep 1000", "sleep 1000"];
        let line = lines[self.random.below(lines.len() as u64) as usize];
        let lifetimes = [Lifetime::Tied, Lifetime::Detached];
        let id = format!("soak-{}-{}", self.number, self.made);
        // A group of this run's own, by which it sees what it leaves behind, and no test that runs beside it takes it for its own.
        let group = format!("/longshore-soak/{}-{id}", std::process::id());
        let builder = self.engine.container(id).image(&image);
        let builder = builder.args(["/bin/sh", "-c", line]).io(Io::null());
        let builder = builder.lifetime(lifetimes[self.random.below(2) as usize]);
        let container = match builder
            .spec(move |spec| spec.memory(64 << 20).pids_limit(32).cgroups_path(group))
            .create()
            .await
        {
            Ok(container) => container,
            Err(error) => {
                // What it is made from may have been collected.
                self.image = None;
                return Err(error);
            }
        };
        self.containers.push(container.clone());
        container.start().await
    }

    async fn with_one<F>(&mut self, what: &'static str, tally: &mut Tally, work: impl Fn(Container) -> F)
    where
        F: Future<Output = Result<(), longshore::Error>>,
    {
        if self.containers.is_empty() {
            return;
        }
        let one = self.random.below(self.containers.len() as u64) as usize;
        tally.count(what, work(self.containers[one].clone()).await);
    }

    async fn exec(container: Container) -> Result<(), longshore::Error> {
        container.command(["/bin/sh", "-c", "exit 0"]).run().await.map(drop)
    }

    async fn pause(container: Container) -> Result<(), longshore::Error> {
        container.pause().await?;
        container.resume().await
    }

    /// Somebody listens for a moment.
    async fn subscribe(&mut self, tally: &mut Tally) {
        let mut events = self.engine.subscribe(Filter::all().topic("/tasks/"));
        let outcome = self.start_if_room().await;
        while events.try_recv().is_some() {}
        tally.count("listen", outcome);
    }

    async fn start_if_room(&mut self) -> Result<(), longshore::Error> {
        match self.containers.len() < MOST {
            true => self.start().await,
            false => Ok(()),
        }
    }

    async fn end_one(&mut self, tally: &mut Tally) {
        if self.containers.is_empty() {
            return;
        }
        let one = self.random.below(self.containers.len() as u64) as usize;
        let container = self.containers.swap_remove(one);
        // It may have ended by itself.
        let _ = container.kill(SIGKILL).await;
        let outcome = match container.wait().await {
            Ok(_) => container.delete(DeleteMode::Stopped).await,
            // It never ran.
            Err(_) => container.delete(DeleteMode::Force).await,
        };
        tally.count("end", outcome);
    }

    /// Ends all that it has running.
    pub(crate) async fn end_all(&mut self, tally: &mut Tally) {
        while !self.containers.is_empty() {
            self.end_one(tally).await;
        }
    }
}
