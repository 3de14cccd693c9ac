use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's docker-registry on loopback, over the storage that `image.rs` made in `folder`.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    host: String,
    log: PathBuf,
}

impl Registry {
    pub(crate) fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let (config, log) = (folder.join("registry.yml"), folder.join("registry.log"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            folder.display()
        );
        std::fs::write(&config, text).expect("the registry's config");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(std::fs::File::create(&log).expect("a log"))
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let host = format!("127.0.0.1:{port}");
        wait_until("docker-registry", || TcpStream::connect(&host).is_ok());
        Self { child, host, log }
    }

    /// The name of the image.
    pub(crate) fn image(&self) -> String {
        format!("{}/{}:{}", self.host, crate::image::REPOSITORY, crate::image::TAG)
    }

    /// How many requests it has logged.
    pub(crate) fn requests(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("the log");
        log.lines().filter(|line| line.contains(" /v2/")).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
}
