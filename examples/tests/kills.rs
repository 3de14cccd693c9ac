//! The command line, killed with SIGKILL at random moments of its works: afterwards the store opens, no blob is wrong, and the next one goes on.
//!
//! `LONGSHORE_KILLS` says how often; what was fetched again is printed.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_examples::host_image;
use longshore_registry::{Registry, RunningRegistry};
use longshore_testing::{require_root, skip};
use oci_spec::image::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// How often when nobody says.
const USUAL: u64 = 8;
/// Layers besides this machine's programs, and how large each is.
const LAYERS: u64 = 3;
const LAYER: usize = 6 << 20;

/// Numbers that a seed gives (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Somewhere in 0..1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer of one file that can't be compressed.
fn layer(number: u64) -> Bytes {
    let mut chance = Chance(number + 1);
    let content: Vec<u8> = (0..LAYER / 8).flat_map(|_| chance.next().to_le_bytes()).collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, format!("large-{number}"), content.as_slice())
        .expect("an entry");
    tar.into_inner().expect("an archive").into()
}

/// This machine's programs and some large layers, as `app:1`; their bytes.
async fn fill(registry: &RunningRegistry) -> u64 {
    let image = host_image::build().expect("an image");
    let mut manifest: Value = serde_json::from_slice(&image.manifest.1).expect("JSON");
    let config = image.blobs.last().expect("a config").1.clone();
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    let mut blobs: Vec<Bytes> = image.blobs[..image.blobs.len() - 1]
        .iter()
        .map(|(_, bytes)| bytes.clone())
        .collect();
    for number in 0..LAYERS {
        let bytes = layer(number);
        let described = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(&bytes), "size": bytes.len(),
        });
        manifest["layers"].as_array_mut().expect("layers").push(described);
        config["rootfs"]["diff_ids"]
            .as_array_mut()
            .expect("diffIDs")
            .push(sha256(&bytes).into());
        blobs.push(bytes);
    }
    let config = Bytes::from(config.to_string());
    manifest["config"]["digest"] = sha256(&config).into();
    manifest["config"]["size"] = config.len().into();
    blobs.push(config);
    let mut size = 0;
    for blob in blobs {
        size += blob.len() as u64;
        registry.put_blob(blob).await.expect("a blob");
    }
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let put = registry.put_manifest("app", Some("1"), media_type, manifest.to_string());
    put.await.expect("a manifest");
    size
}

/// A root directory.
struct Site<'a>(&'a Path);

impl Site<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.arg("--root").arg(self.0).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("longshore")
    }

    fn ok(&self, words: &[&str]) -> Duration {
        let begun = Instant::now();
        let output = self.run(words);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {told}");
        begun.elapsed()
    }

    /// Kills it some time within `whole`; whether it was still at it.
    fn kill(&self, words: &[&str], whole: Duration, chance: &mut Chance) -> bool {
        let mut command = self.command(words);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("longshore");
        std::thread::sleep(whole.mul_f64(chance.part()));
        let _ = child.kill();
        let status = child.wait().expect("it ended");
        !status.success()
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // A test that failed leaves its container.
        let _ = self.run(&["rm", "-f", "c"]);
    }
}

/// Bytes of blobs that a registry has sent.
fn sent(registry: &RunningRegistry) -> u64 {
    let requests = registry.requests();
    requests
        .iter()
        .filter(|request| request.path.contains("/blobs/"))
        .map(|request| request.sent())
        .sum()
}

#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    in_time: u64,
    again: u64,
    most: u64,
}

#[test]
fn killed_at_any_moment_nothing_is_wrong_and_the_next_goes_on() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let times = std::env::var("LONGSHORE_KILLS")
        .ok()
        .and_then(|times| times.parse().ok());
    let seed = std::env::var("LONGSHORE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("LONGSHORE_SEED={seed}");
    let mut chance = Chance(seed);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let registry = runtime
        .block_on(Registry::builder().serve("127.0.0.1:0"))
        .expect("a registry");
    let size = runtime.block_on(fill(&registry));
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site(folder.path());
    let name = format!("{}/app:1", registry.host());

    let pulling = site.ok(&["pull", &name]);
    site.ok(&["run", "-d", "--name", "c", &name, "/bin/sleep", "3600"]);
    site.ok(&["exec", "c", "/bin/sh", "-c", "echo changed >/changed"]);
    let committing = site.ok(&["commit", "c", "made.example/a:usual"]);
    let pushing = site.ok(&["push", "made.example/a:usual", &format!("{}/usual:1", registry.host())]);
    let removing = site.ok(&["rmi", "made.example/a:usual"]);

    let works = ["pull", "commit", "push", "collect"];
    let mut tallies: [Tally; 4] = Default::default();
    for round in 0..times.unwrap_or(USUAL) {
        let at = (round % 4) as usize;
        let tally = &mut tallies[at];
        tally.kills += 1;
        let made = format!("made.example/a:{round}");
        match works[at] {
            "pull" => {
                // A root that has nothing yet.
                let other = tempfile::tempdir().expect("a folder");
                let puller = Site(other.path());
                registry.clear_requests();
                tally.in_time += u64::from(puller.kill(&["pull", &name], pulling, &mut chance));
                puller.ok(&["content", "verify"]);
                puller.ok(&["pull", &name]);
                let sent = sent(&registry);
                assert!(
                    (size..=2 * size).contains(&sent),
                    "round {round}: {sent} bytes were sent of an image of {size}: not all of it, or all of it twice"
                );
                let again = sent - size;
                tally.again += again;
                tally.most = tally.most.max(again);
                puller.ok(&["content", "verify"]);
            }
            "commit" => {
                tally.in_time += u64::from(site.kill(&["commit", "c", &made], committing, &mut chance));
                site.ok(&["content", "verify"]);
                // It is not paused any more.
                site.ok(&["exec", "c", "/bin/sh", "-c", "test -e /changed"]);
                site.ok(&["commit", "c", &made]);
                site.ok(&["rmi", &made]);
            }
            "push" => {
                let there = format!("{}/pushed-{round}:1", registry.host());
                tally.in_time += u64::from(site.kill(&["push", &name, &there], pushing, &mut chance));
                site.ok(&["content", "verify"]);
                site.ok(&["push", &name, &there]);
                let pushed: Option<Digest> = registry.resolve(&format!("pushed-{round}"), "1");
                assert_eq!(pushed, registry.resolve("app", "1"), "round {round}");
            }
            _ => {
                site.ok(&["commit", "c", &made]);
                tally.in_time += u64::from(site.kill(&["rmi", &made], removing, &mut chance));
                site.ok(&["content", "verify"]);
                site.ok(&["gc"]);
                site.ok(&["exec", "c", "/bin/sh", "-c", "test -e /changed"]);
                let _ = site.run(&["rmi", &made]);
            }
        }
    }
    site.ok(&["content", "verify"]);
    site.ok(&["rm", "-f", "c"]);
    for (work, tally) in works.iter().zip(&tallies) {
        println!(
            "{work}: killed {} times, {} of them before it had ended",
            tally.kills, tally.in_time
        );
    }
    let Tally { again, most, kills, .. } = &tallies[0];
    println!("fetched again: {again} bytes in {kills} pulls of {size}, at most {most} in one");
}
