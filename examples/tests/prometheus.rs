//! A real Prometheus scrapes the example's exporter, and knows afterwards what the engine did and what the container uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longshore_testing::{require_root, require_tool, skip};

/// A program that ends with the test, by the signal that it wants.
struct Running(Child, &'static str);

impl Drop for Running {
    fn drop(&mut self) {
        // The exporter removes its container when it is asked to end.
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-s", self.1, &pid]).status();
        let _ = self.0.wait();
    }
}

/// The head and the body of an answer; `None` while nobody listens.
fn get(address: &str, path: &str, accept: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

fn exporter(folder: &Path) -> (Running, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_metrics-exporter"))
        .arg("127.0.0.1:0")
        .env("LONGSHORE_ROOT", folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example");
    let stdout = child.stdout.take().expect("it is piped");
    let running = Running(child, "INT");
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it says where it listens");
    let url = line
        .trim()
        .strip_prefix("http://")
        .and_then(|url| url.strip_suffix("/metrics"));
    let address = url.unwrap_or_else(|| panic!("an address, not '{line}'")).to_owned();
    (running, address)
}

fn prometheus(folder: &Path, target: &str) -> (Running, String) {
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
- job_name: longshore
  static_configs: [ {{ targets: [ '{target}' ] }} ]
"
    );
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, config).expect("written");
    let free = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus");
    (Running(child, "TERM"), free.to_string())
}

/// What a query gives, once it gives anything.
fn ask(prometheus: &mut Running, address: &str, query: &str) -> String {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    loop {
        let answer = get(address, &format!("/api/v1/query?query={escaped}"), "*/*");
        if let Some((_, body)) = answer
            && let Ok(answer) = serde_json::from_str::<serde_json::Value>(&body)
        {
            assert_ne!(answer["status"], "error", "{query}: {answer}");
            if let Some(value) = answer["data"]["result"][0]["value"][1].as_str() {
                return value.to_owned();
            }
        }
        let ended = prometheus.0.try_wait().expect("a child");
        assert!(ended.is_none(), "prometheus ended: {ended:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_real_prometheus_scrapes_the_exporter() {
    let ready = require_root().and_then(|()| require_tool("prometheus").map(drop));
    if let Err(why) = ready {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (_exporter, target) = exporter(&folder.path().join("root"));

    // Each format to who asks for it, and nothing else than metrics.
    let (head, open) = get(&target, "/metrics", "application/openmetrics-text; version=1.0.0").expect("an answer");
    assert!(head.contains("Content-Type: application/openmetrics-text"), "{head}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    let (head, plain) = get(&target, "/metrics", "text/plain").expect("an answer");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(plain.contains("\nlongshore_pulls_total{"), "{plain}");
    let (head, _) = get(&target, "/", "*/*").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");

    let (mut prometheus, api) = prometheus(folder.path(), &target);
    let mut ask = |query: &str| ask(&mut prometheus, &api, query);
    assert_eq!(ask("up{job=\"longshore\"} == 1"), "1", "the scrape is understood");
    assert_eq!(ask("longshore_containers{state=\"running\"} == 1"), "1");
    assert_eq!(ask("sum(longshore_pulls_total{outcome=\"success\"})"), "1");
    assert_eq!(ask("longshore_events_total{topic=\"/tasks/start\"}"), "1");
    assert_eq!(
        ask("sum(longshore_container_start_duration_seconds_bucket{le=\"+Inf\"})"),
        "1"
    );
    let memory = ask("longshore_container_memory_usage_bytes{container_id=\"counted\"} > 0");
    assert!(memory.parse::<f64>().is_ok_and(|bytes| bytes > 0.0), "{memory}");
    ask("rate(longshore_container_cpu_seconds_total{container_id=\"counted\"}[10s])");
}
