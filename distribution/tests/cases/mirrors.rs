//! Several hosts for one registry: their order, what each is asked for, how one stands in for another, and whom each trusts.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use http::{Method, StatusCode};
use longshore_content::{ContentStore, MemoryStore};
use longshore_distribution::conformance::Sample;
use longshore_distribution::{
    Capability, Credential, Error, ErrorKind, Host, Hosts, Reference, RegistryClient, Resolver, RetryPolicy, Static,
    push_image,
};
use longshore_registry::{Fault, FaultScript, Registry, RunningRegistry};

use crate::script::Scripted;
use crate::support::{quick, serve};
use crate::tls::{Authority, Clients};
use crate::{assert_whole, count, pull};

/// A registry that is nowhere: only its hosts are.
const NAME: &str = "registry.example/app:1";

fn name() -> Reference {
    NAME.parse().expect("a reference")
}

fn host(registry: &RunningRegistry) -> Host {
    Host::new(&format!("http://{}", registry.host())).expect("a host")
}

fn client(hosts: impl IntoIterator<Item = Host>) -> RegistryClient {
    let hosts = Hosts::new().with("registry.example", hosts);
    let builder = RegistryClient::builder().hosts(hosts).retry(quick());
    builder.build().expect("a client")
}

/// A client of a tree with this `hosts.toml` for every registry.
fn client_of(tree: &Path, text: &str) -> RegistryClient {
    std::fs::create_dir_all(tree.join("_default")).expect("a folder");
    std::fs::write(tree.join("_default/hosts.toml"), text).expect("written");
    let builder = RegistryClient::builder().hosts(Hosts::new().tree(tree)).retry(quick());
    builder.build().expect("a client")
}

async fn sample_registry(sample: &Sample, faults: FaultScript) -> RunningRegistry {
    serve(Registry::builder().faults(faults), sample).await.0
}

/// The address of a port that nobody listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test]
async fn one_that_fails_is_passed_over() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let broken = FaultScript::new();
    broken.add("/v2/", Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let empty = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    let (broken, whole) = (
        sample_registry(&sample, broken).await,
        sample_registry(&sample, FaultScript::new()).await,
    );
    let gone = Host::new(&format!("http://{}", nobody())).expect("a host");
    let hosts = [gone, host(&broken), host(&empty), host(&whole)];
    pull(client(hosts), &store, &name()).await.expect("the last one has it");
    assert_whole(&store, &sample).await;
    let asked = empty.requests();
    assert!(
        asked[0]
            .query
            .as_deref()
            .is_some_and(|query| query == "ns=registry.example"),
        "{asked:?}"
    );
    assert!(!broken.requests().is_empty());
}

#[tokio::test]
async fn when_all_fail_each_is_named() {
    let empty = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    let gone = nobody();
    let hosts = [Host::new(&format!("http://{gone}")).expect("a host"), host(&empty)];
    let error = client(hosts).resolve(&name()).await.expect_err("nobody has it");
    assert_eq!(error.kind(), ErrorKind::NotFound, "the last one's: {error:?}");
    let text = error.to_string();
    assert!(text.contains("registry.example") && text.contains(&gone), "{text}");
    assert!(matches!(error, Error::AllHosts { .. }), "{error:?}");
}

#[tokio::test]
async fn a_mirror_is_asked_only_for_what_it_may_say() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let mirror = sample_registry(&sample, FaultScript::new()).await;
    let own = sample_registry(&sample, FaultScript::new()).await;
    let hosts = [host(&mirror).capabilities([Capability::Pull]), host(&own)];
    pull(client(hosts), &store, &name()).await.expect("pulled");
    assert!(
        mirror
            .requests()
            .iter()
            .all(|request| !request.path.contains("/manifests/1"))
    );
    assert!(mirror.requests().iter().any(|request| request.path.contains("/blobs/")));
    assert!(own.requests().iter().all(|request| !request.path.contains("/blobs/")));
    let error = client([host(&mirror).capabilities([Capability::Pull])])
        .resolve(&name())
        .await;
    assert!(matches!(error, Err(Error::NoHost { .. })), "{error:?}");
}

#[tokio::test]
async fn a_push_goes_to_who_takes_pushes() {
    let sample = Sample::new();
    let [mirror, own] = [(); 2].map(|()| Registry::builder());
    let mirror = mirror.serve("127.0.0.1:0").await.expect("a registry");
    let own = own.serve("127.0.0.1:0").await.expect("a registry");
    let hosts = [
        host(&mirror).capabilities([Capability::Pull, Capability::Resolve]),
        host(&own),
    ];
    let store = sample.store().await;
    push_image(&client(hosts), &store, &name(), &sample.manifest.0)
        .await
        .expect("pushed");
    assert_eq!(own.resolve("app", "1").as_ref(), Some(sample.manifest.0.digest()));
    assert!(mirror.requests().is_empty());
}

#[tokio::test]
async fn the_next_one_goes_on_in_the_middle_of_a_blob() {
    let sample = Sample::new();
    for fault in [Fault::CutAfter(150_000), Fault::SendLess(150_000)] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        let large = sample.blobs.iter().max_by_key(|(blob, _)| blob.size()).expect("blobs");
        faults.add(large.0.digest().to_string(), fault.clone());
        let mirror = sample_registry(&sample, faults).await;
        let own = sample_registry(&sample, FaultScript::new()).await;
        pull(client([host(&mirror), host(&own)]), &store, &name())
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert_whole(&store, &sample).await;
        let resumed = own
            .requests()
            .iter()
            .any(|request| request.range.as_deref() == Some("bytes=150000-"));
        assert!(resumed, "{fault:?}: {:?}", own.requests());
    }
}

#[tokio::test]
async fn wrong_bytes_of_one_are_fetched_from_the_next() {
    let sample = Sample::new();
    for fault in [
        Fault::CorruptAt(77),
        Fault::Body("application/octet-stream".into(), vec![0; 1 << 20].into()),
    ] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add("/blobs/", fault.clone());
        let mirror = sample_registry(&sample, faults.clone()).await;
        let own = sample_registry(&sample, FaultScript::new()).await;
        pull(client([host(&mirror), host(&own)]), &store, &name())
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert_whole(&store, &sample).await;
        // Wrong everywhere, it is one error.
        let (store, own) = (Arc::new(MemoryStore::new()), sample_registry(&sample, faults).await);
        let error = pull(client([host(&mirror), host(&own)]), &store, &name())
            .await
            .expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Verification, "{fault:?}: {error:?}");
        assert_eq!(count(&store).await, 1, "only the manifest is visible");
    }
}

#[tokio::test]
async fn each_has_tls_of_its_own() {
    let sample = Sample::new();
    let folder = tempfile::tempdir().expect("a folder");
    let registry = sample_registry(&sample, FaultScript::new()).await;
    let [one, two, three] = ["one", "two", "three"].map(|name| Authority::new(&folder.path().join(name)));
    let anyone = one.front(&registry.host(), Clients::Anyone).await;
    let certified = two.front(&registry.host(), Clients::Certified).await;
    let unknown = three.front(&registry.host(), Clients::Anyone).await;
    let tree = folder.path().join("certs.d");
    // One client for all three, with a file for each.
    for (front, text) in [
        (&anyone, "ca = '../../one/ca.pem'".to_owned()),
        (
            &certified,
            "ca = '../../two/ca.pem'\nclient = [['../../two/client.pem', '../../two/client.key']]".to_owned(),
        ),
        (&unknown, "skip_verify = true".to_owned()),
    ] {
        let directory = tree.join(front.replace(':', "_") + "_");
        std::fs::create_dir_all(&directory).expect("a folder");
        std::fs::write(
            directory.join("hosts.toml"),
            format!("server = 'https://{front}'\n{text}\n"),
        )
        .expect("written");
    }
    let client = Arc::new(client_of(&tree, "server = 'https://nobody.invalid'"));
    for front in [&anyone, &certified, &unknown] {
        let name: Reference = format!("{front}/app:1").parse().expect("a reference");
        let resolved = client
            .resolve(&name)
            .await
            .unwrap_or_else(|error| panic!("{front}: {error:?}"));
        assert_eq!(resolved.descriptor.digest(), sample.manifest.0.digest());
    }
    // Neither trust nor a certificate is shared.
    for (front, ca) in [(&anyone, two.ca()), (&certified, two.ca()), (&unknown, one.ca())] {
        let host = Host::new(&format!("https://{front}"))
            .expect("a host")
            .authority_file(ca);
        let error = self::client([host]).resolve(&name()).await.expect_err("not trusted");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    let missing = Host::new("https://127.0.0.1:1")
        .expect("a host")
        .authority_file(folder.path().join("none.pem"));
    let error = self::client([missing])
        .resolve(&name())
        .await
        .expect_err("no such file");
    assert!(
        matches!(&error, Error::HostsFile { .. }) && error.to_string().contains("none.pem"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_for_one_host_does_not_leave_it() {
    let other = Scripted::serve(|_, _| (200, Vec::new(), "0123456789".into()));
    let target = format!("http://{}/elsewhere", other.host);
    let mirror = Scripted::serve(move |asked, _| match asked.authorization {
        None => (401, vec![("WWW-Authenticate", "Basic realm=x".into())], String::new()),
        Some(_) => (307, vec![("Location", target.clone())], String::new()),
    });
    let tree = tempfile::tempdir().expect("a folder");
    let text = format!(
        "server = 'http://{}/api'\noverride_path = true\n[header]\nx-team = 'build'\n",
        mirror.host
    );
    std::fs::create_dir(tree.path().join("registry.example")).expect("a folder");
    std::fs::write(tree.path().join("registry.example/hosts.toml"), text).expect("written");
    let credentials = Static::new()
        .with(mirror.host.clone(), Credential::basic("me", "secret"))
        .with("registry.example", Credential::basic("me", "of-the-registry"));
    let client = RegistryClient::builder()
        .hosts(Hosts::new().tree(tree.path()))
        .credentials(Arc::new(credentials))
        .retry(quick());
    let client = client.build().expect("a client");
    let digest = longshore_content::sha256(b"0123456789");
    let layer = oci_spec::image::Descriptor::new(oci_spec::image::MediaType::ImageLayer, 10, digest);
    longshore_distribution::Fetcher::fetch(&client, &name(), &layer, 0)
        .await
        .expect("fetched");
    assert!(
        mirror.asked()[0].line.starts_with("GET /api/app/blobs/sha256:"),
        "{:?}",
        mirror.asked()
    );
    assert_eq!(mirror.first_header("x-team").as_deref(), Some("build"));
    let sent = mirror.asked()[1].authorization.clone();
    assert_eq!(
        sent.as_deref(),
        Some("Basic bWU6c2VjcmV0"),
        "the credential is the mirror's own"
    );
    assert_eq!(other.asked().len(), 1);
    assert_eq!(other.first_header("x-team"), None);
    assert_eq!(other.first_header("authorization"), None);
}

#[tokio::test]
async fn a_bad_file_stops_what_it_is_about() {
    let tree = tempfile::tempdir().expect("a folder");
    let client = client_of(tree.path(), "server = 'https://x.invalid'\nskip_verfy = true\n");
    let error = client.resolve(&name()).await.expect_err("a key that is not known");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("_default/hosts.toml, line 2: 'skip_verfy'"), "{text}");
}

const PROXY: &str = "LONGSHORE_TEST_PROXY";

/// The environment is read when a client is made, so the test runs itself again with another one.
#[test]
fn the_proxy_of_the_environment_is_asked() {
    let proxy = Scripted::serve(|_, _| (404, Vec::new(), String::new()));
    let address = format!("http://{}", proxy.host);
    let run = |variable: &str, except: &str| {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        for name in [
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
            "NO_PROXY",
            "no_proxy",
            "REQUEST_METHOD",
        ] {
            command.env_remove(name);
        }
        let ran = command
            .args([
                "--exact",
                "mirrors::inside_of_a_proxy",
                "--nocapture",
                "--include-ignored",
            ])
            .env(PROXY, "yes")
            .env(variable, &address)
            .env("NO_PROXY", except)
            .output()
            .expect("it runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    run("http_proxy", "");
    assert_eq!(proxy.asked().len(), 1);
    let line = proxy.asked()[0].line.clone();
    assert!(
        line.starts_with("GET http://registry.invalid:5000/v2/app/manifests/1"),
        "{line}"
    );
    run("ALL_PROXY", "");
    assert_eq!(proxy.asked().len(), 2);
    run("http_proxy", "registry.invalid");
    assert_eq!(proxy.asked().len(), 2, "it is an exception");
}

#[tokio::test]
#[ignore = "runs inside of the test above"]
async fn inside_of_a_proxy() {
    if std::env::var_os(PROXY).is_none() {
        return;
    }
    let hosts = ["http://registry.invalid:5000"].map(|url| Host::new(url).expect("a host"));
    let once = RetryPolicy { attempts: 1, ..quick() };
    let hosts = Hosts::new().with("registry.example", hosts);
    let client = RegistryClient::builder()
        .hosts(hosts)
        .retry(once)
        .build()
        .expect("a client");
    client.resolve(&name()).await.expect_err("there is no such host");
}

#[tokio::test]
async fn a_mirror_that_went_away_is_found_again() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let faults = FaultScript::new();
    faults.add("/blobs/", Fault::CutAfter(10)).method(Method::GET).times(1);
    let mirror = sample_registry(&sample, faults).await;
    let own = sample_registry(&sample, FaultScript::new()).await;
    let client = client([host(&mirror).capabilities([Capability::Pull]), host(&own)]);
    let (layer, bytes) = sample.blobs.iter().max_by_key(|(blob, _)| blob.size()).expect("blobs");
    pull(client, &store, &name()).await.expect("pulled");
    assert_eq!(
        store.info(layer.digest()).await.expect("it is there").size,
        bytes.len() as u64
    );
}
