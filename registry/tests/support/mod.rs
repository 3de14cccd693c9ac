//! An HTTP client for the tests here, whatever TLS the rest of the workspace has switched on in it.

/// A client to be.
pub(crate) fn http() -> reqwest::ClientBuilder {
    // The second test of a process finds the provider installed, which is what it wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
