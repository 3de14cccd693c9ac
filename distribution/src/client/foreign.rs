//! Layers that live elsewhere than in the registry: those that must not be distributed, by their `urls`.

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderValue, Method, StatusCode};
use oci_spec::image::{Descriptor, MediaType};
use url::Url;

use super::endpoint::Endpoint;
use super::http::Call;
use super::read::range_start;
use crate::{Error, Fetched, Result};

/// More addresses than these are not tried.
const MAX_URLS: usize = 8;

/// Whether `urls` of such a layer are looked at: for others they would only be a way to send us somewhere.
fn is_foreign(media_type: &MediaType) -> bool {
    matches!(
        media_type,
        MediaType::ImageLayerNonDistributable
            | MediaType::ImageLayerNonDistributableGzip
            | MediaType::ImageLayerNonDistributableZstd
    ) || media_type
        .as_ref()
        .starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Where else a layer may be had.
pub(super) fn places(descriptor: &Descriptor) -> Vec<Url> {
    if !is_foreign(descriptor.media_type()) {
        return Vec::new();
    }
    let urls = descriptor.urls().iter().flatten().take(MAX_URLS);
    urls.filter_map(|url| Url::parse(url).ok()).collect()
}

/// Fetches from one of those addresses, with no credential and by the rules of redirects: `endpoint` is who named it.
pub(super) async fn fetch(endpoint: &Endpoint, url: Url, descriptor: &Descriptor, offset: u64) -> Result<Fetched> {
    let from = Call::new(Method::GET, endpoint.root.clone());
    endpoint.http.may_follow(&from, &url, &endpoint.name)?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut call = Call::new(Method::GET, url);
    call.headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if offset > 0 {
        let range = HeaderValue::try_from(format!("bytes={offset}-")).expect("digits fit in a header");
        call.headers.insert(RANGE, range);
    }
    let response = endpoint.http.send(&call, &host, None).await?;
    let offset = match response.status() {
        StatusCode::OK => Some(0),
        StatusCode::PARTIAL_CONTENT => range_start(response.headers(), offset),
        _ => None,
    };
    match offset {
        Some(offset) => Ok(Fetched {
            offset,
            stream: endpoint.http.body(response, &call, &host),
        }),
        None => Err(Error::Status {
            registry: host,
            status: response.status().as_u16(),
            request: call.label(),
            reason: format!("it was named as a place of {}", descriptor.digest()),
        }),
    }
}
