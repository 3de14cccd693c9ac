//! Each fault, as a client sees it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use longshore_content::sha256;
use longshore_registry::{Auth, Fault, FaultScript, Registry, RunningRegistry};
use reqwest::{Client, Method, Response, StatusCode};

const SIZE: usize = 1_000_000;

struct Faulty {
    registry: RunningRegistry,
    faults: FaultScript,
    client: Client,
    blob: Bytes,
}

impl Faulty {
    async fn new() -> Self {
        let faults = FaultScript::new();
        let registry = Registry::builder()
            .faults(faults.clone())
            .serve("127.0.0.1:0")
            .await
            .unwrap();
        let blob: Bytes = (0..SIZE as u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 15) as u8)
            .collect();
        let digest = registry.put_blob(blob.clone()).await.unwrap();
        registry.link_blob("a", &digest).await.unwrap();
        let client = support::http()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            registry,
            faults,
            client,
            blob,
        }
    }

    fn url(&self) -> String {
        format!("{}/v2/a/blobs/{}", self.registry.url(), sha256(&self.blob))
    }

    async fn get(&self) -> Response {
        self.client.get(self.url()).send().await.unwrap()
    }
}

/// What arrives of a body, and whether it ended well.
async fn arrives(response: Response) -> (Vec<u8>, bool) {
    let (mut all, mut pieces) = (Vec::new(), response.bytes_stream());
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(_) => return (all, false),
        }
    }
    (all, true)
}

fn length(response: &Response) -> Option<u64> {
    response.headers()["content-length"].to_str().ok()?.parse().ok()
}

#[tokio::test]
async fn nothing_goes_wrong_by_itself() {
    let faulty = Faulty::new().await;
    assert!(arrives(faulty.get().await).await == (faulty.blob.to_vec(), true));
}

#[tokio::test]
async fn cut() {
    for offset in [0, 1, 300_000, SIZE as u64 - 1] {
        let faulty = Faulty::new().await;
        faulty.faults.add("/blobs/", Fault::CutAfter(offset)).times(1);
        let response = faulty.get().await;
        assert_eq!(length(&response), Some(SIZE as u64), "the header promises all");
        let (arrived, well) = arrives(response).await;
        assert!(
            !well && arrived == faulty.blob[..offset as usize],
            "{} of {offset}",
            arrived.len()
        );
        assert!(arrives(faulty.get().await).await.1, "only once");
    }
}

#[tokio::test]
async fn stall() {
    let faulty = Faulty::new().await;
    faulty.faults.add("/blobs/", Fault::StallAfter(1000));
    let mut pieces = faulty.get().await.bytes_stream();
    let mut arrived = 0;
    while arrived < 1000 {
        arrived += pieces.next().await.unwrap().unwrap().len();
    }
    assert_eq!(arrived, 1000);
    let more = tokio::time::timeout(Duration::from_millis(100), pieces.next()).await;
    assert!(more.is_err(), "neither more nor an end");
}

#[tokio::test]
async fn corrupt() {
    let faulty = Faulty::new().await;
    faulty.faults.add("/blobs/", Fault::CorruptAt(300_000));
    let (arrived, well) = arrives(faulty.get().await).await;
    let different: Vec<usize> = (0..SIZE).filter(|&at| arrived[at] != faulty.blob[at]).collect();
    assert!(well && different == [300_000], "{different:?}");
}

#[tokio::test]
async fn wrong_lengths() {
    let faulty = Faulty::new().await;
    faulty.faults.add("/blobs/", Fault::ClaimMore(10)).times(1);
    faulty.faults.add("/blobs/", Fault::SendLess(10)).times(1);
    let response = faulty.get().await;
    assert_eq!(length(&response), Some(SIZE as u64 + 10));
    let (arrived, well) = arrives(response).await;
    assert!(!well && arrived.len() <= SIZE);
    let response = faulty.get().await;
    assert_eq!(length(&response), Some(SIZE as u64 - 10));
    assert!(arrives(response).await == (faulty.blob[..SIZE - 10].to_vec(), true));
}

#[tokio::test]
async fn statuses() {
    let faulty = Faulty::new().await;
    faulty
        .faults
        .add("/blobs/", Fault::Status(StatusCode::INTERNAL_SERVER_ERROR))
        .times(2);
    faulty.faults.add("/blobs/", Fault::TooManyRequests(7)).times(1);
    faulty
        .faults
        .add("/blobs/", Fault::RedirectTo("http://elsewhere:1".into()))
        .times(1);
    faulty
        .faults
        .add(
            "/blobs/",
            Fault::Body("text/html".into(), Bytes::from_static(b"<html>")),
        )
        .times(1);
    assert_eq!(faulty.get().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(faulty.get().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let throttled = faulty.get().await;
    assert_eq!(
        (throttled.status(), &throttled.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
    );
    let redirected = faulty.get().await;
    assert_eq!(redirected.status(), StatusCode::TEMPORARY_REDIRECT);
    let there = redirected.headers()["location"].to_str().unwrap();
    assert_eq!(there, format!("http://elsewhere:1/v2/a/blobs/{}", sha256(&faulty.blob)));
    assert_eq!(faulty.get().await.text().await.unwrap(), "<html>");
    assert_eq!(faulty.get().await.status(), StatusCode::OK);
    let statuses: Vec<u16> = faulty
        .registry
        .requests()
        .iter()
        .map(|request| request.status.unwrap().as_u16())
        .collect();
    assert_eq!(statuses, [500, 500, 429, 307, 200, 200]);
}

#[tokio::test]
async fn hangup_and_delay() {
    let faulty = Faulty::new().await;
    faulty.faults.add("/blobs/", Fault::Hangup).times(1);
    faulty
        .faults
        .add("/blobs/", Fault::Delay(Duration::from_millis(30)))
        .times(1);
    // Clients may try a GET again by themselves when a kept connection was closed, so a fresh one is used.
    let fresh = support::http().retry(reqwest::retry::never()).build().unwrap();
    assert!(fresh.get(faulty.url()).send().await.is_err());
    assert!(faulty.registry.requests()[0].status.is_none());
    assert_eq!(faulty.get().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn cut_uploads() {
    let faulty = Faulty::new().await;
    faulty
        .faults
        .add("/uploads/", Fault::CutUploadAfter(5000))
        .method(Method::PATCH)
        .times(1);
    let (client, url) = (&faulty.client, faulty.registry.url());
    let begun = client.post(format!("{url}/v2/b/blobs/uploads/")).send().await.unwrap();
    let upload = format!("{url}{}", begun.headers()["location"].to_str().unwrap());
    assert!(client.patch(&upload).body(faulty.blob.clone()).send().await.is_err());
    let status = client.get(&upload).send().await.unwrap();
    assert_eq!(status.headers()["range"], "0-4999");
    let put = client
        .put(format!("{upload}?digest={}", sha256(&faulty.blob)))
        .body(faulty.blob.slice(5000..));
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn unauthorized_in_the_middle() {
    let faults = FaultScript::new();
    let registry = Registry::builder()
        .auth(Auth::basic("me", "x"))
        .faults(faults.clone())
        .serve("127.0.0.1:0")
        .await
        .unwrap();
    faults.add("/v2/", Fault::Unauthorized).skip(1).times(1);
    let client = support::http().build().expect("a client");
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let request = client
            .get(format!("{}/v2/", registry.url()))
            .basic_auth("me", Some("x"));
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 401, 200]);
}

#[tokio::test]
async fn rules_are_narrowed() {
    let faulty = Faulty::new().await;
    faulty
        .faults
        .add("/blobs/", Fault::Status(StatusCode::BAD_GATEWAY))
        .method(Method::HEAD);
    assert_eq!(faulty.get().await.status(), StatusCode::OK);
    assert_eq!(
        faulty.client.head(faulty.url()).send().await.unwrap().status(),
        StatusCode::BAD_GATEWAY
    );
    faulty.faults.clear();
    let head = faulty.client.head(faulty.url()).send().await.unwrap();
    assert_eq!((head.status(), length(&head)), (StatusCode::OK, Some(SIZE as u64)));
}
