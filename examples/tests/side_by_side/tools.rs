//! Real tools, started for one test and ended with it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a shell script and returns what it printed; a script that fails fails the test with what it said.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .output()
        .expect("bash");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{script}\nfailed:\n{out}\n{err}");
    out.into_owned()
}

/// A server that ends with the test.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Debian's docker-registry on loopback; its host with port.
pub(crate) fn docker_registry(folder: &Path) -> (Server, String) {
    let port = free_port();
    let config = folder.join("registry.yml");
    let storage = folder.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n",
        storage.display()
    );
    std::fs::write(&config, text).expect("the registry's config");
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry");
    let server = Server { child };
    wait_until("docker-registry", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    (server, format!("127.0.0.1:{port}"))
}

/// Debian's containerd with a root of its own, inside a mount namespace of its own; its socket.
pub(crate) fn containerd(folder: &Path) -> (Server, PathBuf) {
    let socket = folder.join("containerd.sock");
    let config = folder.join("containerd.toml");
    let text = format!(
        "version = 2\nroot = '{0}/containerd'\nstate = '{0}/containerd-state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
         [grpc]\naddress = '{0}/containerd.sock'\n[ttrpc]\naddress = '{0}/ttrpc.sock'\n",
        folder.display()
    );
    std::fs::write(&config, text).expect("containerd's config");
    let child = Command::new("containerd")
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("containerd");
    let server = Server { child };
    wait_until("containerd", || {
        let version = Command::new("ctr").arg("-a").arg(&socket).arg("version").output();
        version.is_ok_and(|output| output.status.success())
    });
    (server, socket)
}

/// All that a tree is, as text that `diff` can compare: type, mode, owner, links, times, targets, devices, contents and extended attributes.
pub(crate) const DESCRIBE: &str = r#"
describe() (
    cd "$1"
    find . -mindepth 1 ! -type d -printf '%P type=%y mode=%m owner=%U:%G links=%n mtime=%T@ target=%l\n' | LC_ALL=C sort
    find . -mindepth 1 -type d -printf '%P type=%y mode=%m owner=%U:%G mtime=%T@\n' | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
    find . \( -type b -o -type c \) -print0 | LC_ALL=C sort -z | xargs -0 -r stat -c '%n device=%t:%T'
    find . -mindepth 1 -print0 | LC_ALL=C sort -z | xargs -0 -r getfattr -h -d -m '^(user|security|system\.posix)' 2>/dev/null
)
"#;
