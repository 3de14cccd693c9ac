//! What a pull or a push shows: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use longshore::distribution::{ProgressEvent, PullProgress, PushEvent, PushProgress};
use longshore::oci_spec::image::Descriptor;

use crate::images::human;

#[derive(Debug)]
pub(crate) struct Progress {
    screen: Option<MultiProgress>,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Progress {
    /// `doing` as in "pulling".
    pub(crate) fn new(doing: &str, name: &str) -> Self {
        eprintln!("{doing} {name}");
        let screen = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self {
            screen,
            bars: Mutex::default(),
        }
    }

    /// Leaves the screen as it stands.
    pub(crate) fn finish(&self) {
        for bar in self.bars.lock().unwrap_or_else(PoisonError::into_inner).values() {
            bar.abandon();
        }
    }

    fn bar(&self, screen: &MultiProgress, blob: &Descriptor) -> ProgressBar {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        bars.entry(blob.digest().to_string())
            .or_insert_with(|| {
                let style = "{prefix:19} {bar:30} {bytes:>10} of {total_bytes:10} {bytes_per_sec:12} {msg}";
                let style = ProgressStyle::with_template(style).expect("the template is valid");
                let bar = screen.add(ProgressBar::new(blob.size()).with_style(style));
                bar.set_prefix(short(blob));
                bar
            })
            .clone()
    }

    fn draw(&self, screen: &MultiProgress, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Cached { blob } => {
                let bar = self.bar(screen, blob);
                bar.set_position(blob.size());
                bar.finish_with_message("is here");
            }
            ProgressEvent::Elsewhere { blob } => self.bar(screen, blob).finish_with_message("is with the snapshotter"),
            ProgressEvent::Started { blob, offset } | ProgressEvent::Bytes { blob, offset } => {
                self.bar(screen, blob).set_position(offset);
            }
            ProgressEvent::Waiting { blob } => self.bar(screen, blob).set_message("waits for another pull"),
            ProgressEvent::Resumed { blob, .. } => self.bar(screen, blob).set_message("resumed"),
            ProgressEvent::Committed { blob } => self.bar(screen, blob).finish_with_message("done"),
            _ => {}
        }
    }

    fn tell(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Resolved { target } => eprintln!("{}: resolved", target.digest()),
            ProgressEvent::Cached { blob } => eprintln!("{}: is here", short(blob)),
            ProgressEvent::Elsewhere { blob } => eprintln!("{}: is with the snapshotter", short(blob)),
            ProgressEvent::Resumed { blob, offset, reason } => {
                eprintln!("{}: cut at {} ({reason}); going on", short(blob), human(offset));
            }
            ProgressEvent::Committed { blob } => eprintln!("{}: {} done", short(blob), human(blob.size())),
            _ => {}
        }
    }
}

impl PullProgress for Progress {
    fn event(&self, event: ProgressEvent<'_>) {
        match &self.screen {
            Some(screen) => self.draw(screen, event),
            None => self.tell(event),
        }
    }
}

impl Progress {
    fn draw_push(&self, screen: &MultiProgress, event: PushEvent<'_>) {
        match event {
            PushEvent::Started { blob } => drop(self.bar(screen, blob)),
            PushEvent::Bytes { blob, offset } => self.bar(screen, blob).set_position(offset),
            PushEvent::Present { blob } => self.bar(screen, blob).finish_with_message("is there"),
            PushEvent::Mounted { blob } => self.bar(screen, blob).finish_with_message("taken over"),
            PushEvent::Sent { blob } => self.bar(screen, blob).finish_with_message("done"),
            _ => {}
        }
    }

    fn tell_push(&self, event: PushEvent<'_>) {
        match event {
            PushEvent::Planned { blobs } => eprintln!("{} blobs and manifests", blobs.len()),
            PushEvent::Present { blob } => eprintln!("{}: is there", short(blob)),
            PushEvent::Mounted { blob } => eprintln!("{}: taken over", short(blob)),
            PushEvent::Sent { blob } => eprintln!("{}: {} done", short(blob), human(blob.size())),
            _ => {}
        }
    }
}

impl PushProgress for Progress {
    fn event(&self, event: PushEvent<'_>) {
        match &self.screen {
            Some(screen) => self.draw_push(screen, event),
            None => self.tell_push(event),
        }
    }
}

fn short(blob: &Descriptor) -> String {
    blob.digest().to_string().chars().take(19).collect()
}
