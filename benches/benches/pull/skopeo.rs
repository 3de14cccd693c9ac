use std::path::Path;
use std::process::{Command, Stdio};

use crate::measure::{Took, clock};

/// The two programs are there.
pub(crate) struct Skopeo(());

impl Skopeo {
    pub(crate) fn find() -> Option<Self> {
        for tool in ["skopeo", "umoci"] {
            if let Err(why) = longshore_testing::require_tool(tool) {
                println!("NOT FOUND: skopeo and umoci: {why}");
                return None;
            }
        }
        Some(Self(()))
    }

    /// `skopeo copy` into an image layout, and `umoci unpack` from there.
    pub(crate) fn pull(&self, folder: &Path, name: &str) -> Took {
        let layout = folder.join("layout");
        let run = |program: &str, words: &[&str]| {
            let status = Command::new(program).args(words).stdout(Stdio::null()).status();
            assert!(status.expect("it starts").success(), "{program} {words:?}");
        };
        let image = format!("{}:latest", layout.display());
        let bundle = folder.join("bundle").display().to_string();
        Took::by(|| {
            let wall = clock(|| {
                let (from, to) = (format!("docker://{name}"), format!("oci:{image}"));
                run("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &to]);
                run("umoci", &["unpack", "--image", &image, &bundle]);
            });
            (wall, 0.0)
        })
    }
}
