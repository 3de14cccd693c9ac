//! Credential helpers, run as Docker runs them. They are found by `PATH`, so the tests run themselves again with another one.

use std::process::Command;

use longshore_distribution::{Credential, Credentials, DockerConfig, ErrorKind};

const FOLDER: &str = "LONGSHORE_TEST_HELPERS";

const HELPER: &str = r#"#!/bin/sh
read -r server
case "$1 $server" in
    "get https://index.docker.io/v1/") echo '{"ServerURL":"x","Username":"hub","Secret":"s1"}' ;;
    "get r.example:5000") echo '{"Username":"<token>","Secret":"refresh"}' ;;
    "get none.example") echo "credentials not found in native keychain"; exit 1 ;;
    "get junk.example") echo "secret junk" ;;
    "get left.example") sleep 0.2 & echo '{"Username":"u","Secret":"s2"}' ;;
    *) echo "secret failure"; exit 3 ;;
esac
"#;

const CONFIG: &str = r#"{
    "credsStore": "test",
    "credHelpers": { "own.example": "missing" },
    "auths": { "none.example": { "auth": "bWU6c2VjcmV0" }, "own.example": {} }
}"#;

#[test]
fn helpers_are_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let helper = folder.path().join("docker-credential-test");
    longshore_testing::write_program(&helper, HELPER).expect("written");
    std::fs::write(folder.path().join("config.json"), CONFIG).expect("written");
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "inside", "--nocapture", "--include-ignored"])
        .env("PATH", path)
        .env(FOLDER, folder.path())
        .output()
        .expect("this test runs");
    let (out, err) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success() && out.contains("1 passed"), "{out}{err}");
}

#[tokio::test]
#[ignore = "run by helpers_are_asked, with a PATH of its own"]
async fn inside() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let config = DockerConfig::file(std::path::Path::new(&folder).join("config.json"));
    for (host, expected) in [
        ("docker.io", Credential::basic("hub", "s1")),
        ("r.example:5000", Credential::IdentityToken("refresh".into())),
        ("none.example", Credential::basic("me", "secret")),
        ("left.example", Credential::basic("u", "s2")),
    ] {
        assert!(config.credential(host, "a/b").await.expect(host) == expected, "{host}");
    }
    for host in ["junk.example", "other.example", "own.example"] {
        let error = config.credential(host, "a/b").await.expect_err(host);
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("docker-credential-") && !text.contains("secret"),
            "{text}"
        );
    }
}
