//! Answers that no registry should give, and token servers of all kinds: what the client makes of them, and what it never sends.

#[path = "support/script.rs"]
mod script;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use longshore_content::sha256;
use longshore_distribution::{
    Credential, Error, ErrorKind, Fetcher, PlainHttp, Reference, RegistryClient, Resolver, RetryPolicy, Static,
};
use oci_spec::image::{Descriptor, MediaType};
use script::{Asked, Scripted};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SECRET: &str = "open-sesame";

type Answer = (u16, Vec<(&'static str, String)>, String);

fn client(host: &str, credential: Credential) -> RegistryClient {
    let retry = RetryPolicy {
        attempts: 3,
        first_wait: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    RegistryClient::builder()
        .credentials(Arc::new(Static::new().with(host, credential)))
        .retry(retry)
        .idle_timeout(Duration::from_secs(5))
        .build()
        .expect("a client")
}

fn name(server: &Scripted) -> Reference {
    format!("{}/team/app:1", server.host).parse().expect("a reference")
}

async fn resolve(server: &Scripted) -> Result<longshore_distribution::Resolved, Error> {
    client(&server.host, Credential::basic("me", SECRET))
        .resolve(&name(server))
        .await
}

fn manifest() -> Answer {
    (200, vec![("Content-Type", OCI_MANIFEST.into())], MANIFEST.into())
}

fn challenge(text: impl Into<String>) -> Answer {
    (401, vec![("WWW-Authenticate", text.into())], String::new())
}

fn status(status: u16) -> Answer {
    (status, Vec::new(), String::new())
}

fn chain(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text += &format!(" {inner} {inner:?}");
        cause = inner.source();
    }
    text
}

#[tokio::test]
async fn the_digest_is_computed_and_a_claim_of_another_refused() {
    let server = Scripted::serve(|_, _| manifest());
    let resolved = resolve(&server).await.expect("resolved");
    assert_eq!(resolved.descriptor.digest(), &sha256(MANIFEST.as_bytes()));
    let other = sha256(b"other").to_string();
    let server = Scripted::serve(move |_, _| {
        let (status, mut headers, body) = manifest();
        headers.push(("Docker-Content-Digest", other.clone()));
        (status, headers, body)
    });
    assert_eq!(
        resolve(&server).await.expect_err("it lies").kind(),
        ErrorKind::Verification
    );
}

#[tokio::test]
async fn by_digest_the_bytes_must_have_it() {
    let server = Scripted::serve(|_, _| manifest());
    let by_digest = name(&server).clone_with_digest(sha256(b"other").to_string());
    let error = client(&server.host, Credential::Anonymous)
        .resolve(&by_digest)
        .await
        .expect_err("other bytes");
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    let sha512 = "sha512:".to_owned() + &"0".repeat(128);
    let by_digest = name(&server).clone_with_digest(sha512);
    let error = client(&server.host, Credential::Anonymous)
        .resolve(&by_digest)
        .await
        .expect_err("other bytes");
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn documents_that_are_not_what_they_are_called_are_refused() {
    for (media_type, body, kind) in [
        (OCI_MANIFEST, r#"{"manifests":[],"layers":[]}"#, ErrorKind::Protocol),
        ("application/vnd.oci.image.index.v1+json", MANIFEST, ErrorKind::Protocol),
        ("text/html", "<html>log in here</html>", ErrorKind::Protocol),
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            r#"{"schemaVersion":1}"#,
            ErrorKind::Unsupported,
        ),
        (
            "application/json",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            ErrorKind::Unsupported,
        ),
    ] {
        let server = Scripted::serve(move |_, _| (200, vec![("Content-Type", media_type.into())], body.into()));
        let error = resolve(&server).await.expect_err(body);
        assert_eq!(error.kind(), kind, "{media_type} {body}: {error}");
    }
}

#[tokio::test]
async fn a_short_answer_does_not_pass_for_a_whole_one() {
    let server = Scripted::serve(|_, _| {
        let (status, mut headers, body) = manifest();
        headers.push(("Content-Length", "100000".into()));
        (status, headers, body)
    });
    assert_eq!(
        resolve(&server).await.expect_err("it was cut").kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn redirects_have_limits() {
    let server = Scripted::serve(|_, n| (307, vec![("Location", format!("/again/{n}"))], String::new()));
    let error = resolve(&server).await.expect_err("for ever");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.asked().len(), 6);
    for to in [
        "http://registry.example/x",
        "file:///etc/passwd",
        "http://user:pass@127.0.0.1/x",
        "ftp://127.0.0.1/",
        "http://",
    ] {
        let server = Scripted::serve(move |_, _| (302, vec![("Location", to.into())], String::new()));
        let error = resolve(&server).await.expect_err(to);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{to}: {error}");
        assert!(!chain(&error).contains("user:pass"), "{error:?}");
    }
    let server = Scripted::serve(|_, _| status(302));
    assert_eq!(resolve(&server).await.expect_err("nowhere").kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn signatures_in_addresses_are_not_shown() {
    let server = Scripted::serve(|asked, _| match asked.line.contains("signed") {
        true => (500, vec![("Content-Length", "-".into())], String::new()),
        false => (
            307,
            vec![("Location", "/signed?X-Amz-Signature=topsecret".into())],
            String::new(),
        ),
    });
    let error = resolve(&server).await.expect_err("it is broken");
    assert!(
        chain(&error).contains("/signed") && !chain(&error).contains("topsecret"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    let server = Scripted::serve(|asked, _| {
        assert!(asked.line.starts_with("GET /v2/team/app/blobs/sha256:"));
        (206, vec![("Content-Range", "bytes 3-9/10".into())], "3456789".into())
    });
    let layer = Descriptor::new(MediaType::ImageLayer, 10, sha256(b"0123456789"));
    let client = client(&server.host, Credential::Anonymous);
    let error = client.fetch(&name(&server), &layer, 5).await.expect_err("from 3");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let mut fetched = client.fetch(&name(&server), &layer, 3).await.expect("from 3");
    assert_eq!(fetched.offset, 3);
    assert_eq!(fetched.stream.next().await.expect("a chunk").expect("bytes"), "3456789");
}

fn bearer(asked: &Asked, token_answer: Answer) -> Answer {
    match asked.authorization.as_deref() {
        _ if asked.line.contains("/token") => token_answer,
        Some("Bearer good") => manifest(),
        _ => challenge("to be replaced"),
    }
}

/// A registry whose token server is itself.
fn with_token_server(answer: impl Fn(&Asked) -> Answer + Send + 'static) -> Scripted {
    // The address is known only when it serves: the client tells it in `Host`, so ask for a relative place by port.
    let port = Arc::new(std::sync::OnceLock::new());
    let known = port.clone();
    let server = Scripted::serve(move |asked, _| {
        let host: &String = known.get().expect("it was set");
        match bearer(asked, answer(asked)) {
            (401, headers, _) if headers.iter().any(|(_, value)| value == "to be replaced") => challenge(format!(
                r#"Bearer realm="http://{host}/token",service="the service",scope="repository:team/app:pull""#
            )),
            other => other,
        }
    });
    port.set(server.host.clone()).expect("set once");
    server
}

#[tokio::test]
async fn a_password_is_traded_for_a_token() {
    let server = with_token_server(|_| (200, Vec::new(), r#"{"token":"good"}"#.into()));
    let client = client(&server.host, Credential::basic("me", SECRET));
    client.resolve(&name(&server)).await.expect("resolved");
    client.resolve(&name(&server)).await.expect("resolved");
    let asked = server.asked();
    let lines: Vec<_> = asked.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "GET /v2/team/app/manifests/1",
            "GET /token?service=the+service&scope=repository%3Ateam%2Fapp%3Apull&account=me",
            "GET /v2/team/app/manifests/1",
            "GET /v2/team/app/manifests/1",
        ]
    );
    let sent: Vec<_> = asked
        .iter()
        .map(|asked| asked.authorization.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(sent, ["-", "Basic bWU6b3Blbi1zZXNhbWU=", "Bearer good", "Bearer good"]);
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let server = with_token_server(|_| (200, Vec::new(), r#"{"access_token":"good","expires_in":300}"#.into()));
    let client = client(&server.host, Credential::IdentityToken(SECRET.into()));
    client.resolve(&name(&server)).await.expect("resolved");
    let asked = server.asked();
    assert_eq!(asked[1].line, "POST /token");
    assert_eq!(asked[1].authorization, None);
    let form: Vec<_> = asked[1].body.split('&').collect();
    for part in [
        "grant_type=refresh_token",
        "service=the+service",
        "refresh_token=open-sesame",
        "scope=repository%3Ateam%2Fapp%3Apull",
    ] {
        assert!(form.contains(&part), "{form:?}");
    }
}

#[tokio::test]
async fn many_requests_share_one_token() {
    let server = with_token_server(|_| (200, Vec::new(), r#"{"token":"good"}"#.into()));
    let (client, name) = (client(&server.host, Credential::basic("me", SECRET)), name(&server));
    for outcome in futures::future::join_all((0..10).map(|_| client.resolve(&name))).await {
        outcome.expect("resolved");
    }
    let tokens = server
        .asked()
        .iter()
        .filter(|asked| asked.line.contains("/token"))
        .count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed_before_it_is_used() {
    let server = with_token_server(|_| (200, Vec::new(), r#"{"token":"good","expires_in":0}"#.into()));
    let client = client(&server.host, Credential::basic("me", SECRET));
    for _ in 0..2 {
        client.resolve(&name(&server)).await.expect("resolved");
    }
    let refused = server
        .asked()
        .iter()
        .filter(|asked| asked.authorization.is_none())
        .count();
    assert_eq!(refused, 1, "only the very first request went out with nothing");
}

#[tokio::test]
async fn bad_token_servers_are_told_and_no_secret_with_it() {
    for (answer, kind) in [
        (
            (403, Vec::new(), r#"{"details":"no such user"}"#.into()),
            ErrorKind::Unauthorized,
        ),
        ((200, Vec::new(), "{}".into()), ErrorKind::Protocol),
        ((200, Vec::new(), r#"{"token":"bad"}"#.into()), ErrorKind::Unauthorized),
        ((200, Vec::new(), " ".repeat(2 << 20)), ErrorKind::Protocol),
        (status(500), ErrorKind::Unavailable),
    ] {
        let answer: Answer = answer;
        let server = with_token_server(move |_| answer.clone());
        let error = resolve(&server).await.expect_err("no token");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(
            !chain(&error).contains(SECRET) && !chain(&error).contains("bWU6"),
            "{}",
            chain(&error)
        );
    }
}

#[tokio::test]
async fn no_credential_goes_where_it_could_be_read() {
    for realm in [
        "http://token.example/token",
        "token",
        "ftp://127.0.0.1/",
        "https://user:pw@token.example/",
        "",
    ] {
        let server = Scripted::serve(move |_, _| challenge(format!(r#"Bearer realm="{realm}""#)));
        let error = resolve(&server).await.expect_err(realm);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{realm}: {error}");
    }
    // A credential is for one host only.
    let server = Scripted::serve(|_, _| challenge("Basic realm=x"));
    let elsewhere = client("other.example", Credential::basic("me", SECRET));
    let error = elsewhere
        .resolve(&name(&server))
        .await
        .expect_err("there is none for it");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(server.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn a_password_that_is_refused_is_not_tried_for_ever() {
    let server = Scripted::serve(|_, _| {
        let body = r#"{"errors":[{"code":"DENIED","message":"your plan has ended"}]}"#;
        (401, vec![("WWW-Authenticate", "Basic realm=x".into())], body.into())
    });
    let error = resolve(&server).await.expect_err("denied");
    assert!(error.to_string().contains("your plan has ended"), "{error}");
    assert_eq!(server.asked().len(), 2);
    let server = Scripted::serve(|_, _| challenge("Negotiate"));
    assert!(
        resolve(&server)
            .await
            .expect_err("unknown")
            .to_string()
            .contains("Basic and Bearer")
    );
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    let client = client("", Credential::Anonymous);
    let name: Reference = format!("{port}/app:1").parse().expect("a reference");
    let error = client.resolve(&name).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = chain(&error);
    assert!(text.contains(&port.to_string()) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_plain_server_does_not_pass_for_an_encrypted_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // Kept open until the other side goes, so that it reads this and no reset.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let client = RegistryClient::builder()
        .plain_http(PlainHttp::Never)
        .build()
        .expect("a client");
    let name: Reference = format!("{host}/app:1").parse().expect("a reference");
    let error = client.resolve(&name).await.expect_err("it speaks no TLS");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(
        accepted.load(Ordering::SeqCst),
        1,
        "that is not tried again: {}",
        chain(&error)
    );
    assert!(chain(&error).contains("does not speak TLS"), "{}", chain(&error));
}
