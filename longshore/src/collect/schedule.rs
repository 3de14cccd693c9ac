use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use longshore_events::{Filter, Subscription};
use longshore_metadata::CollectOptions;
use tokio::sync::oneshot;

use crate::Engine;
use crate::create::blocking;

/// When to collect in the background.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Schedule {
    /// After so many deletions of images and containers, and changes of what an image's name means; `None` is never.
    pub deletions: Option<u32>,
    /// How long after them, so that what goes together is collected together.
    pub delay: Duration,
    /// At least so often; `None` is never.
    pub every: Option<Duration>,
    /// When less than so many percent of the filesystem are free, looked at once a minute; `None` is never.
    pub free_below: Option<u8>,
    /// The most of the time that collections take, in percent, 1 to 100: each sweep rests between its groups, and the next run waits in proportion to the last.
    pub share: u8,
}

impl Default for Schedule {
    /// A second after a deletion, every hour, when less than a tenth is free; a tenth of the time at most.
    fn default() -> Self {
        Self {
            deletions: Some(1),
            delay: Duration::from_secs(1),
            every: Some(Duration::from_secs(60 * 60)),
            free_below: Some(10),
            share: 10,
        }
    }
}

/// How often free space is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// What "never" is.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Collections that go on in the background. They end when this is dropped; a run in progress finishes.
#[derive(Debug)]
#[must_use = "collections end when this is dropped"]
pub struct Collecting {
    _stop: oneshot::Sender<()>,
}

impl Engine {
    /// Collects in the background from now on, as the schedule says. An engine does not do so by itself: when to give a disk's time away, and whether what somebody put into the stores
    /// by hand may go, is for the program to say.
    ///
    /// A run that fails is told by a warning, and by the metrics.
    pub fn collect_in_background(&self, schedule: Schedule) -> Collecting {
        let (stop, stopped) = oneshot::channel();
        // Subscribed here, so that what is deleted from now on counts.
        let deletions = self.subscribe(Filter::all().topic("/images/").topic("/containers/delete"));
        let background = Background {
            engine: self.clone(),
            schedule,
            deletions,
            count: 0,
        };
        tokio::spawn(background.run(stopped));
        Collecting { _stop: stop }
    }
}

struct Background {
    engine: Engine,
    schedule: Schedule,
    deletions: Subscription,
    count: u32,
}

impl Background {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let share = u32::from(self.schedule.share.clamp(1, 100));
        let options = CollectOptions::default().share(self.schedule.share.clamp(1, 100));
        let mut last = Instant::now();
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                due = self.due(last) => if !due { return },
            }
            let begun = Instant::now();
            if let Err(error) = self.engine.collect_with(options.clone()).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a scheduled collection failed"
                );
            }
            last = Instant::now();
            // The sweep has rested already; the mark has not. To rest once more after a long run costs nothing.
            let rest = (begun.elapsed() * (100 - share) / share).min(Duration::from_secs(60 * 60));
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Waits until a collection is due; `false` when the engine's bus is gone.
    async fn due(&mut self, last: Instant) -> bool {
        let wanted = self.schedule.deletions.unwrap_or(u32::MAX).max(1);
        let timer = tokio::time::sleep(self.schedule.every.unwrap_or(NEVER).saturating_sub(last.elapsed()));
        tokio::pin!(timer);
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        loop {
            if self.count >= wanted {
                self.count = 0;
                tokio::time::sleep(self.schedule.delay).await;
                return true;
            }
            tokio::select! {
                () = &mut timer => return true,
                _ = look.tick() => if self.is_short_of_space().await { return true },
                received = self.deletions.next() => match received {
                    None => return false,
                    // What was missed may have been deletions.
                    Some(received) => {
                        let frees = received.event().is_none_or(|event| event.topic() != "/images/create");
                        self.count += u32::from(frees);
                    }
                },
            }
        }
    }

    async fn is_short_of_space(&self) -> bool {
        let Some(percent) = self.schedule.free_below else {
            return false;
        };
        let root = self.engine.root.clone();
        blocking(move || free_percent(root))
            .await
            .is_some_and(|free| free < u64::from(percent))
    }
}

/// How much of a filesystem an ordinary user may still fill.
fn free_percent(path: PathBuf) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    (stat.f_bavail * 100).checked_div(stat.f_blocks)
}
