use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::measure::{Took, clock};
use crate::registry::wait_until;

/// A containerd and its `ctr`.
#[derive(Debug)]
pub(crate) struct Containerd {
    pub(crate) name: String,
    daemon: PathBuf,
    ctr: PathBuf,
}

impl Containerd {
    /// What `$LONGSHORE_CONTAINERD` has.
    pub(crate) fn two() -> Option<Self> {
        match std::env::var_os("LONGSHORE_CONTAINERD") {
            Some(folder) => Self::new(
                PathBuf::from(&folder).join("containerd"),
                PathBuf::from(&folder).join("ctr"),
            ),
            None => {
                println!(
                    "NOT FOUND: containerd 2: name the directory with `containerd` and `ctr` in $LONGSHORE_CONTAINERD"
                );
                None
            }
        }
    }

    /// That of the path.
    pub(crate) fn debian() -> Option<Self> {
        match (
            longshore_testing::require_tool("containerd"),
            longshore_testing::require_tool("ctr"),
        ) {
            (Ok(daemon), Ok(ctr)) => Self::new(daemon, ctr),
            (Err(why), _) | (_, Err(why)) => {
                println!("NOT FOUND: containerd: {why}");
                None
            }
        }
    }

    fn new(daemon: PathBuf, ctr: PathBuf) -> Option<Self> {
        let output = Command::new(&daemon)
            .arg("--version")
            .output()
            .expect("containerd starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().nth(2).unwrap_or("of no version");
        let name = format!("containerd {}", version.split(['~', '+']).next().unwrap_or(version));
        Some(Self { name, daemon, ctr })
    }

    /// `ctr image pull` by a daemon that is up already, with stores of its own. It unpacks, into the overlay snapshotter. The daemon's CPU seconds count, those of its start
    /// (a tenth of one) among them.
    pub(crate) fn pull(&self, folder: &Path, name: &str) -> Took {
        let (config, socket) = (folder.join("config.toml"), folder.join("socket"));
        let text = format!(
            "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{0}/socket'\n[ttrpc]\naddress = '{0}/ttrpc'\n",
            folder.display()
        );
        std::fs::write(&config, text).expect("containerd's config");
        Took::by(|| {
            let mut daemon = Command::new(&self.daemon);
            daemon
                .arg("-c")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut daemon = daemon.spawn().expect("containerd");
            let ctr = |words: &[&str]| {
                let mut ctr = Command::new(&self.ctr);
                ctr.arg("-a").arg(&socket).args(words).stdout(Stdio::null());
                ctr
            };
            wait_until("containerd", || {
                let version = ctr(&["version"]).stderr(Stdio::null()).status();
                version.is_ok_and(|status| status.success())
            });
            let wall = clock(|| {
                let pulled = ctr(&["image", "pull", "--plain-http", "--snapshotter", "overlayfs", name]).output();
                let pulled = pulled.expect("ctr starts");
                assert!(
                    pulled.status.success(),
                    "{}: {}",
                    self.name,
                    String::from_utf8_lossy(&pulled.stderr)
                );
            });
            // It is ours, and nothing of it is needed any more.
            let _ = daemon.kill();
            let _ = daemon.wait();
            (wall, 0.0)
        })
    }
}
