//! Debian's docker-registry on loopback, with TLS by an authority of its own, and one user.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longshore_testing::require_tool;

/// `me:secret`, as bcrypt.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

const CERTIFICATES: &str = "
    openssl req -x509 -newkey rsa:2048 -nodes -subj '/CN=test authority' -days 2 -keyout ca.key -out ca.pem \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
    openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout key.pem -out request.pem
    printf 'subjectAltName=IP:127.0.0.1' > names
    openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem
    openssl x509 -in ca.pem -outform DER -out ca.der
";

pub(crate) struct Server {
    child: Child,
    pub(crate) host: String,
    /// The authority's certificate, as DER.
    pub(crate) authority: Vec<u8>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why there is none here.
pub(crate) fn require() -> Result<(), String> {
    ["docker-registry", "openssl", "bash"]
        .into_iter()
        .try_for_each(|tool| require_tool(tool).map(drop))
}

/// Starts it on loopback, with its state in `folder`.
pub(crate) fn serve(folder: &Path) -> Server {
    let made = Command::new("bash")
        .args(["-euc", CERTIFICATES])
        .current_dir(folder)
        .output()
        .expect("bash");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/storage}}}}\n\
         auth: {{htpasswd: {{realm: test, path: {0}/htpasswd}}}}\n\
         http: {{addr: '{address}', tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}}}\n",
        folder.display()
    );
    std::fs::write(folder.join("config.yml"), config).expect("a config");
    std::fs::write(folder.join("htpasswd"), HTPASSWD).expect("passwords");
    let child = Command::new("docker-registry")
        .args(["serve", "config.yml"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry");
    let server = Server {
        child,
        host: address.to_string(),
        authority: std::fs::read(folder.join("ca.der")).expect("a certificate"),
    };
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "docker-registry did not come up"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}
