//! The distribution specification, endpoint by endpoint, by plain HTTP.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use longshore_content::sha256;
use longshore_registry::{Anonymous, Auth, Bearer, Error, ErrorKind, Registry, RunningRegistry, Users};
use oci_spec::image::Digest;
use reqwest::header::{HeaderMap, HeaderName, LOCATION};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Api {
    registry: RunningRegistry,
    client: Client,
}

impl Api {
    async fn new() -> Self {
        Self::with(Auth::None).await
    }

    async fn with(auth: impl Into<Auth>) -> Self {
        let registry = Registry::builder().auth(auth).serve("127.0.0.1:0").await.unwrap();
        Self {
            registry,
            client: support::http().build().expect("a client"),
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.registry.url()))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(method, path).body(body).send().await.unwrap()
    }

    async fn push_blob(&self, repository: &str, bytes: &'static [u8]) -> Digest {
        let digest = sha256(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(
            self.send(Method::POST, &path, bytes).await.status(),
            StatusCode::CREATED
        );
        digest
    }

    async fn push_manifest(&self, repository: &str, reference: &str, media_type: &str, manifest: &Value) -> Response {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request = self.request(Method::PUT, &path).header("content-type", media_type);
        request.body(manifest.to_string()).send().await.unwrap()
    }
}

fn header(response: &Response, name: impl Into<String>) -> String {
    let name: HeaderName = name.into().parse().unwrap();
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert!(!body["errors"][0]["message"].as_str().unwrap().is_empty());
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

fn image(config: &Digest, layers: &[&Digest]) -> Value {
    let part = |digest: &Digest| json!({ "mediaType": "application/x", "digest": digest, "size": 1 });
    let layers: Vec<Value> = layers.iter().map(|layer| part(layer)).collect();
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": part(config), "layers": layers })
}

#[tokio::test]
async fn the_base_is_served() {
    let api = Api::new().await;
    let response = api.get("/v2/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
    assert_eq!(code(api.get("/elsewhere").await).await.0, 404);
    assert_eq!(
        code(api.send(Method::POST, "/v2/", "").await).await,
        (405, "UNSUPPORTED".into())
    );
    assert_eq!(
        code(api.get("/v2/BAD/tags/list").await).await,
        (400, "NAME_INVALID".into())
    );
    assert_eq!(
        code(api.get("/v2/none/tags/list").await).await,
        (404, "NAME_UNKNOWN".into())
    );
}

// ---- Blobs

#[tokio::test]
async fn blobs_whole_and_in_part() {
    let api = Api::new().await;
    let digest = api.push_blob("some/repository", b"0123456789").await;
    let path = format!("/v2/some/repository/blobs/{digest}");
    let head = api.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        (head.status(), header(&head, "content-length").as_str()),
        (StatusCode::OK, "10")
    );
    assert_eq!(header(&head, "docker-content-digest"), digest.to_string());
    assert_eq!(head.bytes().await.unwrap(), "");
    let whole = api.get(&path).await;
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    assert_eq!(whole.bytes().await.unwrap(), "0123456789");
    for (range, part, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-1", "9", "bytes 9-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let response = api
            .request(Method::GET, &path)
            .header("range", range)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(header(&response, "content-range"), content_range);
        assert_eq!(response.bytes().await.unwrap(), part);
    }
    let beyond = api
        .request(Method::GET, &path)
        .header("range", "bytes=10-")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&beyond, "content-range"), "bytes */10");
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    let elsewhere = format!("/v2/other/blobs/{digest}");
    assert_eq!(
        code(api.get(&elsewhere).await).await,
        (404, "BLOB_UNKNOWN".into()),
        "repositories are apart"
    );
    assert_eq!(
        code(api.get("/v2/a/blobs/sha256:12").await).await,
        (400, "DIGEST_INVALID".into())
    );

    assert_eq!(api.send(Method::DELETE, &path, "").await.status(), StatusCode::ACCEPTED);
    assert_eq!(api.get(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        api.send(Method::DELETE, &path, "").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn large_blobs_are_streamed_both_ways() {
    let api = Api::new().await;
    let bytes: Vec<u8> = (0..8_000_000u32).map(|n| (n >> 3) as u8).collect();
    let digest = sha256(&bytes);
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = bytes.chunks(100_000).map(|piece| Ok(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let response = api
        .send(Method::POST, &format!("/v2/a/blobs/uploads/?digest={digest}"), body)
        .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = header(&response, "location");
    assert!(api.get(&location).await.bytes().await.unwrap() == bytes);
    let requests = api.registry.requests();
    assert_eq!(requests.last().unwrap().sent(), 8_000_000);
}

// ---- Uploads

#[tokio::test]
async fn uploads_in_chunks() {
    let api = Api::new().await;
    let begun = api.send(Method::POST, "/v2/a/blobs/uploads/", "").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let location = header(&begun, LOCATION.as_str());
    let chunk = async |range: &str, bytes: &'static str| {
        let request = api
            .request(Method::PATCH, &location)
            .header("content-range", range)
            .body(bytes);
        request.send().await.unwrap()
    };
    let first = chunk("0-3", "0123").await;
    assert_eq!(
        (first.status(), header(&first, "range").as_str()),
        (StatusCode::ACCEPTED, "0-3")
    );
    let gap = chunk("5-6", "56").await;
    assert_eq!(gap.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&gap, "range"), "0-3", "so the client knows where to go on");
    assert_eq!(chunk("4-5", "45").await.status(), StatusCode::ACCEPTED);
    let status = api.get(&location).await;
    assert_eq!(
        (status.status(), header(&status, "range").as_str()),
        (StatusCode::NO_CONTENT, "0-5")
    );

    let digest = sha256(b"0123456789");
    let done = api
        .send(Method::PUT, &format!("{location}?digest={digest}"), "6789")
        .await;
    assert_eq!(done.status(), StatusCode::CREATED);
    assert_eq!(header(&done, "location"), format!("/v2/a/blobs/{digest}"));
    assert_eq!(
        api.get(&header(&done, "location")).await.bytes().await.unwrap(),
        "0123456789"
    );
    assert_eq!(
        code(api.get(&location).await).await,
        (404, "BLOB_UPLOAD_UNKNOWN".into())
    );
    assert!(api.registry.content().ingests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on() {
    let api = Api::new().await;
    let bytes = vec![7u8; 3_000_000];
    let digest = sha256(&bytes);
    let location = header(&api.send(Method::POST, "/v2/a/blobs/uploads/", "").await, "location");
    let pieces = vec![Ok(bytes[..1_000_000].to_vec()), Err(std::io::Error::other("cut"))];
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    api.request(Method::PATCH, &location)
        .body(body)
        .send()
        .await
        .unwrap_err();
    // The server may still be taking in what arrived before the cut.
    let offset = loop {
        let status = api.get(&location).await;
        if status.status() == StatusCode::NO_CONTENT {
            break header(&status, "range")
                .trim_start_matches("0-")
                .parse::<usize>()
                .unwrap()
                + 1;
        }
        assert_eq!(status.status(), StatusCode::CONFLICT);
    };
    assert!(offset > 1 && offset <= 1_000_000, "{offset}");
    let path = format!("{location}?digest={digest}");
    let rest = bytes[offset..].to_vec();
    assert_eq!(api.send(Method::PUT, &path, rest).await.status(), StatusCode::CREATED);
    assert!(api.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn wrong_digests_are_refused() {
    let api = Api::new().await;
    let wrong = sha256(b"other");
    let whole = api
        .send(Method::POST, &format!("/v2/a/blobs/uploads/?digest={wrong}"), "bytes")
        .await;
    assert_eq!(code(whole).await, (400, "DIGEST_INVALID".into()));
    let location = header(&api.send(Method::POST, "/v2/a/blobs/uploads/", "").await, "location");
    let put = api
        .send(Method::PUT, &format!("{location}?digest={wrong}"), "bytes")
        .await;
    assert_eq!(code(put).await, (400, "DIGEST_INVALID".into()));
    let location = header(&api.send(Method::POST, "/v2/a/blobs/uploads/", "").await, "location");
    assert_eq!(
        code(api.send(Method::PUT, &location, "bytes").await).await,
        (400, "DIGEST_INVALID".into())
    );
    assert_eq!(
        api.get(&format!("/v2/a/blobs/{wrong}")).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.send(Method::DELETE, &location, "").await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(api.get(&location).await.status(), StatusCode::NOT_FOUND);
    assert!(
        api.registry.content().ingests().await.unwrap().is_empty(),
        "nothing is left"
    );
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let api = Api::new().await;
    let location = header(&api.send(Method::POST, "/v2/a/blobs/uploads/", "").await, "location");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(
        code(api.send(Method::PATCH, &elsewhere, "x").await).await,
        (404, "BLOB_UPLOAD_UNKNOWN".into())
    );
}

#[tokio::test]
async fn blobs_are_mounted_across_repositories() {
    let api = Api::new().await;
    let digest = api.push_blob("one", b"layer").await;
    for query in [format!("mount={digest}&from=one"), format!("mount={digest}")] {
        let mounted = api
            .send(Method::POST, &format!("/v2/two/blobs/uploads/?{query}"), "")
            .await;
        assert_eq!(mounted.status(), StatusCode::CREATED);
        assert_eq!(header(&mounted, "location"), format!("/v2/two/blobs/{digest}"));
    }
    assert_eq!(
        api.get(&format!("/v2/two/blobs/{digest}")).await.bytes().await.unwrap(),
        "layer"
    );
    let unknown = sha256(b"unknown");
    let upload = api
        .send(
            Method::POST,
            &format!("/v2/two/blobs/uploads/?mount={unknown}&from=one"),
            "",
        )
        .await;
    assert_eq!(upload.status(), StatusCode::ACCEPTED, "then it is to be uploaded");
}

// ---- Manifests

#[tokio::test]
async fn manifests_by_tag_and_digest() {
    let api = Api::new().await;
    let (config, layer) = (api.push_blob("a", b"{}").await, api.push_blob("a", b"layer").await);
    let manifest = image(&config, &[&layer]);
    let digest = sha256(manifest.to_string().as_bytes());
    let pushed = api.push_manifest("a", "1.0", MANIFEST, &manifest).await;
    assert_eq!(pushed.status(), StatusCode::CREATED);
    assert_eq!(header(&pushed, "docker-content-digest"), digest.to_string());
    assert_eq!(api.registry.resolve("a", "1.0"), Some(digest.clone()));
    for reference in ["1.0", digest.as_ref()] {
        let path = format!("/v2/a/manifests/{reference}");
        let response = api.get(&path).await;
        assert_eq!(header(&response, "content-type"), MANIFEST);
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        assert_eq!(response.text().await.unwrap(), manifest.to_string(), "byte by byte");
        let head = api.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(header(&head, "content-length"), manifest.to_string().len().to_string());
    }
    assert_eq!(
        code(api.get("/v2/a/manifests/2.0").await).await,
        (404, "MANIFEST_UNKNOWN".into())
    );

    assert_eq!(
        api.send(Method::DELETE, "/v2/a/manifests/1.0", "").await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(api.get("/v2/a/manifests/1.0").await.status(), StatusCode::NOT_FOUND);
    let by_digest = format!("/v2/a/manifests/{digest}");
    assert_eq!(
        api.get(&by_digest).await.status(),
        StatusCode::OK,
        "only the tag is gone"
    );
    api.registry.tag("a", "again", &digest).unwrap();
    assert_eq!(
        api.send(Method::DELETE, &by_digest, "").await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(api.get("/v2/a/manifests/again").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_manifests_are_refused() {
    let api = Api::new().await;
    let config = api.push_blob("a", b"{}").await;
    let unknown = sha256(b"unknown");
    let missing = api
        .push_manifest("a", "x", MANIFEST, &image(&config, &[&unknown]))
        .await;
    assert_eq!(code(missing).await, (400, "MANIFEST_BLOB_UNKNOWN".into()));
    let index = json!({ "schemaVersion": 2, "manifests": [{ "digest": unknown, "size": 1, "mediaType": MANIFEST }] });
    assert_eq!(
        code(api.push_manifest("a", "x", INDEX, &index).await).await.1,
        "MANIFEST_BLOB_UNKNOWN"
    );
    assert_eq!(
        code(api.push_manifest("a", "x", MANIFEST, &json!("text")).await)
            .await
            .1,
        "MANIFEST_INVALID"
    );
    assert_eq!(
        code(api.push_manifest("a", "x", INDEX, &image(&config, &[])).await)
            .await
            .1,
        "MANIFEST_INVALID"
    );
    let other = api
        .push_manifest("a", unknown.as_ref(), MANIFEST, &image(&config, &[]))
        .await;
    assert_eq!(code(other).await, (400, "DIGEST_INVALID".into()));
    let large = json!({ "annotations": { "x": "y".repeat(5 << 20) } });
    // The registry closes the connection without reading the rest, which the client may see first.
    if let Ok(response) = api
        .request(Method::PUT, "/v2/a/manifests/x")
        .header("content-type", MANIFEST)
        .json(&large)
        .send()
        .await
    {
        assert_eq!(code(response).await.0, 413);
    }
    assert!(api.registry.resolve("a", "x").is_none());
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = Api::new().await;
    let config = api.push_blob("a", b"{}").await;
    for tag in ["c", "a", "b", "d"] {
        api.push_manifest("a", tag, MANIFEST, &image(&config, &[])).await;
    }
    let all: Value = api.get("/v2/a/tags/list").await.json().await.unwrap();
    assert_eq!(all, json!({ "name": "a", "tags": ["a", "b", "c", "d"] }));
    let page = api.get("/v2/a/tags/list?n=3").await;
    let next = header(&page, "link");
    assert_eq!(page.json::<Value>().await.unwrap()["tags"], json!(["a", "b", "c"]));
    let path = next.trim_start_matches('<').split('>').next().unwrap();
    let page = api.get(path).await;
    assert_eq!(header(&page, "link"), "");
    assert_eq!(page.json::<Value>().await.unwrap()["tags"], json!(["d"]));
    let repositories: Value = api.get("/v2/_catalog").await.json().await.unwrap();
    assert_eq!(repositories["repositories"], json!(["a"]));
}

#[tokio::test]
async fn referrers_are_listed() {
    let api = Api::new().await;
    let config = api.push_blob("a", b"{}").await;
    let subject = sha256(b"not even there");
    let about = |kind: &str| {
        let mut manifest = image(&config, &[]);
        manifest["artifactType"] = json!(kind);
        manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": subject, "size": 1 });
        manifest["annotations"] = json!({ "kind": kind });
        manifest
    };
    for kind in ["x/signature", "x/sbom"] {
        let reference = sha256(about(kind).to_string().as_bytes()).to_string();
        let pushed = api.push_manifest("a", &reference, MANIFEST, &about(kind)).await;
        assert_eq!(header(&pushed, "oci-subject"), subject.to_string());
    }
    let path = format!("/v2/a/referrers/{subject}");
    let all = api.get(&path).await;
    assert_eq!(header(&all, "content-type"), INDEX);
    assert_eq!(
        all.json::<Value>().await.unwrap()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let some = api.get(&format!("{path}?artifactType=x%2Fsbom")).await;
    assert_eq!(header(&some, "oci-filters-applied"), "artifactType");
    let some: Value = some.json().await.unwrap();
    assert_eq!(some["manifests"][0]["annotations"], json!({ "kind": "x/sbom" }));
    assert_eq!(some["manifests"].as_array().unwrap().len(), 1);
    let none: Value = api
        .get(&format!("/v2/b/referrers/{subject}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(none["manifests"], json!([]));
}

// ---- Without HTTP

#[tokio::test]
async fn images_are_put_straight_in() {
    let api = Api::new().await;
    let config = api.registry.put_blob("{}").await.unwrap();
    assert_eq!(
        api.get(&format!("/v2/a/blobs/{config}")).await.status(),
        StatusCode::NOT_FOUND,
        "not yet linked"
    );
    let manifest = image(&config, &[]).to_string();
    let digest = api
        .registry
        .put_manifest("a", Some("latest"), MANIFEST, manifest.clone())
        .await
        .unwrap();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() }] });
    api.registry
        .put_manifest("a", Some("all"), INDEX, index.to_string())
        .await
        .unwrap();
    assert_eq!(
        api.get(&format!("/v2/a/blobs/{config}")).await.bytes().await.unwrap(),
        "{}"
    );
    assert_eq!(api.get("/v2/a/manifests/latest").await.text().await.unwrap(), manifest);
    assert_eq!(api.get("/v2/a/manifests/all").await.status(), StatusCode::OK);

    let kind = |error: Error| error.kind();
    let unknown = sha256(b"unknown");
    let put = api
        .registry
        .put_manifest("a", None, MANIFEST, image(&unknown, &[]).to_string())
        .await;
    assert_eq!(put.map_err(kind), Err(ErrorKind::Invalid));
    let put = api.registry.put_manifest("A", None, MANIFEST, manifest).await;
    assert_eq!(put.map_err(kind), Err(ErrorKind::Invalid));
    assert_eq!(
        api.registry.tag("a", "x", &unknown).map_err(kind),
        Err(ErrorKind::NotFound)
    );
    assert_eq!(
        api.registry.tag("a", "/", &digest).map_err(kind),
        Err(ErrorKind::Invalid)
    );
    assert_eq!(
        api.registry.link_blob("b", &unknown).await.map_err(kind),
        Err(ErrorKind::Content)
    );
    api.registry.link_blob("b", &config).await.unwrap();
    assert_eq!(api.get(&format!("/v2/b/blobs/{config}")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn only_this_machine_is_served() {
    let error = Registry::builder().serve("0.0.0.0:0").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Listen);
    assert!(error.to_string().contains("allow_other_machines"), "{error}");
    let registry = Registry::builder()
        .allow_other_machines()
        .serve("0.0.0.0:0")
        .await
        .unwrap();
    let taken = Registry::builder()
        .serve(&format!("127.0.0.1:{}", registry.address().port()))
        .await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::Listen);
}

#[tokio::test]
async fn a_dropped_registry_is_gone() {
    let api = Api::new().await;
    assert_eq!(api.get("/v2/").await.status(), StatusCode::OK);
    let Api { registry, client } = api;
    let url = registry.url();
    drop(registry);
    // Its task ends at its next turn.
    while client.get(format!("{url}/v2/")).send().await.is_ok() {
        tokio::task::yield_now().await;
    }
}

// ---- Authentication

#[tokio::test]
async fn basic_authentication() {
    let api = Api::with(Auth::basic("me", "secret")).await;
    let refused = api.get("/v2/").await;
    assert!(
        header(&refused, "www-authenticate").starts_with("Basic realm="),
        "{:?}",
        refused.headers()
    );
    assert_eq!(code(refused).await, (401, "UNAUTHORIZED".into()));
    let with = |password: &str| api.request(Method::GET, "/v2/").basic_auth("me", Some(password)).send();
    assert_eq!(with("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(with("secret").await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        api.registry
            .requests()
            .iter()
            .map(|request| request.authorized)
            .collect::<Vec<_>>(),
        [false, true, true]
    );
}

async fn ask_for_token(api: &Api, query: &str, credentials: Option<(&str, &str)>) -> Response {
    let request = api.request(Method::GET, &format!("/token?service=longshore&{query}"));
    match credentials {
        Some((user, password)) => request.basic_auth(user, Some(password)),
        None => request,
    }
    .send()
    .await
    .unwrap()
}

async fn token(api: &Api, query: &str, credentials: Option<(&str, &str)>) -> String {
    let body: Value = ask_for_token(api, query, credentials).await.json().await.unwrap();
    assert_eq!(body["token"], body["access_token"]);
    body["token"].as_str().unwrap().to_owned()
}

async fn status(api: &Api, method: Method, path: &str, token: &str) -> u16 {
    api.request(method, path)
        .bearer_auth(token)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn tokens_have_scopes() {
    let users = Users::default().with("me", "secret");
    let api = Api::with(Bearer::new(users).anonymous(Anonymous::MayPull)).await;
    let config = api.registry.put_blob("{}").await.unwrap();
    api.registry
        .put_manifest("a", Some("latest"), MANIFEST, image(&config, &[]).to_string())
        .await
        .unwrap();
    let path = "/v2/a/manifests/latest";
    let refused = api.get(path).await;
    let challenge = header(&refused, "www-authenticate");
    let realm = format!(
        r#"Bearer realm="{}/token",service="longshore",scope="repository:a:pull""#,
        api.registry.url()
    );
    assert_eq!((refused.status(), challenge), (StatusCode::UNAUTHORIZED, realm));

    let me = Some(("me", "secret"));
    let pull = token(&api, "scope=repository:a:pull", None).await;
    let push = token(&api, "scope=repository:a:pull,push&scope=repository:b:pull", me).await;
    let (get, post) = (|| Method::GET, || Method::POST);
    let uploads = "/v2/a/blobs/uploads/";
    assert_eq!(status(&api, get(), "/v2/", &pull).await, 200);
    assert_eq!(status(&api, get(), path, &pull).await, 200);
    assert_eq!(status(&api, post(), uploads, &pull).await, 401);
    assert_eq!(status(&api, get(), "/v2/b/tags/list", &pull).await, 401);
    assert_eq!(status(&api, get(), "/v2/b/tags/list", &push).await, 404);
    assert_eq!(status(&api, post(), uploads, &push).await, 202);
    assert_eq!(status(&api, Method::DELETE, path, &push).await, 401);
    assert_eq!(status(&api, get(), path, "invented").await, 401);

    let greedy = token(&api, "scope=repository:a:pull,push", None).await;
    assert_eq!(
        status(&api, post(), uploads, &greedy).await,
        401,
        "nobody pushes without a name"
    );
    assert_eq!(
        ask_for_token(&api, "", Some(("me", "wrong"))).await.status(),
        StatusCode::UNAUTHORIZED
    );
    let joined = token(&api, "scope=repository:a:pull%20repository:b:pull", me).await;
    assert_eq!(status(&api, get(), "/v2/b/tags/list", &joined).await, 404);
}

#[tokio::test]
async fn tokens_by_form() {
    let api = Api::with(Auth::bearer("me", "secret")).await;
    let form = "grant_type=password&service=longshore&username=me&password=secret&scope=repository:a:push";
    let answer: Value = api.send(Method::POST, "/token", form).await.json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(status(&api, Method::POST, "/v2/a/blobs/uploads/", token).await, 202);
    let wrong = api.send(Method::POST, "/token", form.replace("secret", "wrong")).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(ask_for_token(&api, "", None).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn tokens_expire() {
    let users = Users::default().with("me", "secret");
    let api = Api::with(Bearer::new(users).lifetime(Duration::ZERO)).await;
    let me = Some(("me", "secret"));
    let stale = token(&api, "scope=repository:a:pull", me).await;
    let refused = api
        .request(Method::GET, "/v2/")
        .bearer_auth(&stale)
        .send()
        .await
        .unwrap();
    assert!(header(&refused, "www-authenticate").ends_with(r#"error="invalid_token""#));

    let api = Api::with(Auth::bearer("me", "secret")).await;
    let good = token(&api, "scope=repository:a:pull", me).await;
    assert_eq!(status(&api, Method::GET, "/v2/", &good).await, 200);
    api.registry.revoke_tokens();
    assert_eq!(status(&api, Method::GET, "/v2/", &good).await, 401);
}

#[tokio::test]
async fn a_mount_needs_a_look_at_the_source() {
    let api = Api::with(Auth::bearer("me", "secret")).await;
    let config = api.registry.put_blob("secret").await.unwrap();
    api.registry.link_blob("private", &config).await.unwrap();
    let me = Some(("me", "secret"));
    let path = format!("/v2/a/blobs/uploads/?mount={config}&from=private");
    let blind = token(&api, "scope=repository:a:pull,push", me).await;
    assert_eq!(status(&api, Method::POST, &path, &blind).await, 202);
    let seeing = token(&api, "scope=repository:a:pull,push&scope=repository:private:pull", me).await;
    assert_eq!(status(&api, Method::POST, &path, &seeing).await, 201);
}

#[tokio::test]
async fn secrets_are_not_told() {
    let api = Api::with(Auth::bearer("me", "hunter2")).await;
    let text = token(&api, "scope=repository:a:pull", Some(("me", "hunter2"))).await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {text}").parse().unwrap());
    api.request(Method::GET, "/v2/").headers(headers).send().await.unwrap();
    let (running, requests) = (format!("{:?}", api.registry), format!("{:?}", api.registry.requests()));
    for told in [running, requests] {
        assert!(!told.contains("hunter2") && !told.contains(&text), "{told}");
    }
}
