//! Against Debian's docker-registry, with TLS by an authority of our own and passwords: pushed, pulled and refused.

mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_content::{ContentStore, ContentStoreExt, MemoryStore};
use longshore_distribution::conformance::{Sample, pusher};
use longshore_distribution::{
    Credential, ErrorKind, PlainHttp, Pull, PullOptions, Reference, RegistryClient, Resolver, Static, push_image,
};
use longshore_testing::{require_tool, skip};

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

struct Server {
    child: Child,
    host: String,
    authority: Vec<u8>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(folder: &Path) -> Server {
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

fn client(server: &Server, password: &str) -> RegistryClient {
    let credentials = Static::new().with(server.host.clone(), Credential::basic("me", password));
    RegistryClient::builder()
        .plain_http(PlainHttp::Never)
        .root_certificate(server.authority.clone())
        .credentials(Arc::new(credentials))
        .build()
        .expect("a client")
}

#[tokio::test]
async fn it_is_pushed_to_pulled_from_and_believed_by_its_certificate() {
    for tool in ["docker-registry", "openssl", "bash"] {
        if let Err(why) = require_tool(tool) {
            return skip(&why);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path());
    let sample = Sample::new();
    let name =
        |repository: &str| -> Reference { format!("{}/{repository}:1", server.host).parse().expect("a reference") };

    let good = client(&server, "secret");
    pusher(&good, (&good, &good), &name("team/conform"), &sample).await;
    let target = &sample.manifest.0;
    push_image(&good, &sample.store().await, &name("team/whole"), target)
        .await
        .expect("pushed");
    let store = Arc::new(MemoryStore::new());
    let content: Arc<dyn ContentStore> = store.clone();
    let whole = name("team/whole");
    let pull = Pull::start(Arc::new(good).into(), content, &whole, PullOptions::default());
    let image = pull.await.expect("started").finish().await.expect("pulled");
    assert_eq!(image.target.digest(), target.digest());
    for (blob, bytes) in &sample.blobs {
        assert_eq!(&store.read(blob.digest(), 1 << 20).await.expect("a blob"), bytes);
    }

    let bad = client(&server, "guessed");
    let error = bad.resolve(&name("team/whole")).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    let push = push_image(&bad, &sample.store().await, &name("team/other"), target).await;
    assert_eq!(push.expect_err("denied").kind(), ErrorKind::Unauthorized);

    let stranger = RegistryClient::builder()
        .plain_http(PlainHttp::Never)
        .build()
        .expect("a client");
    let error = stranger
        .resolve(&name("team/whole"))
        .await
        .expect_err("an unknown authority");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}
