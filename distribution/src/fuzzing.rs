//! What fuzz targets call and nobody else.

use std::path::Path;

use url::Url;

/// A `hosts.toml`, whatever it is.
pub fn hosts_file(text: &str) {
    let own = Url::parse("https://registry.example/v2").expect("it is a URL");
    let _ = crate::hosts::parse(text, Path::new("/nonexistent/hosts.toml"), &own);
}
