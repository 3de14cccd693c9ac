//! An engine's metrics over HTTP, for Prometheus to scrape.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use longshore::Engine;
use longshore::metrics::{OPENMETRICS_TYPE, PROMETHEUS_TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request's head that is longer is none that a scraper sends.
const LONGEST: usize = 16 << 10;
/// Whoever says nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `/metrics` until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the service"]
pub struct Exporter {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Listens, and answers every scrape with fresh figures of the engine: as OpenMetrics for who asks for that, else as Prometheus text.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn serve(engine: Engine, address: &str) -> Result<Self> {
        let listening = TcpListener::bind(address).await;
        let listener = listening.with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr().context("asking for the address")?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(answer(engine.clone(), stream))),
                    // Too many descriptors are open, say: that passes.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one request. What goes wrong on the way to a scraper is for that to tell.
async fn answer(engine: Engine, mut stream: TcpStream) {
    let Ok(Some(head)) = tokio::time::timeout(PATIENCE, head(&mut stream)).await else {
        return;
    };
    let (status, kind, body) = respond(&engine, &head).await;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(answer.as_bytes())).await;
}

/// What comes before the empty line.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let room = LONGEST - head.len();
        let read = stream.take(room as u64).read_buf(&mut head).await.ok()?;
        if read == 0 {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

async fn respond(engine: &Engine, head: &str) -> (&'static str, &'static str, String) {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    if path != "/metrics" {
        return (
            "404 Not Found",
            "text/plain",
            "the metrics are at /metrics\n".to_owned(),
        );
    }
    if method != "GET" {
        return (
            "405 Method Not Allowed",
            "text/plain",
            "GET is what is allowed\n".to_owned(),
        );
    }
    if let Err(error) = engine.sample().await {
        let text = format!("{:#}\n", anyhow::Error::from(error));
        return ("500 Internal Server Error", "text/plain", text);
    }
    let wants_open = head.lines().any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
    });
    match wants_open {
        true => ("200 OK", OPENMETRICS_TYPE, engine.senses.open_metrics()),
        false => ("200 OK", PROMETHEUS_TYPE, engine.senses.text()),
    }
}
