//! Side by side with umoci and containerd: the same image config or defaults, what each makes of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use longshore_bundle::{
    ImageAnnotations, ImageVolumes, MountsView, NoFiles, SpecBuilder, default_masked_paths, default_readonly_paths,
};
use oci_spec::image::ImageConfiguration;
use serde_json::Value;

fn is_installed(program: &str) -> bool {
    let installed = Command::new(program).arg("--version").output().is_ok();
    if !installed {
        longshore_testing::skip(&format!("{program} is not installed"));
    }
    installed
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("json")
}

/// An OCI layout with one image of this config, made by umoci; gives its config as umoci stored it.
fn image(directory: &Path, options: &[&str]) -> ImageConfiguration {
    let layout = directory.join("image");
    let tagged = format!("{}:t", layout.display());
    let umoci = |args: &[&str]| {
        let output = Command::new("umoci").args(args).output().expect("umoci");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    umoci(&["init", "--layout", &layout.display().to_string()]);
    umoci(&["new", "--image", &tagged]);
    umoci(
        &[
            &["config", "--image", &tagged, "--architecture", "amd64", "--os", "linux"],
            options,
        ]
        .concat(),
    );
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        json(layout.join("blobs").join(digest.replace(':', "/")))
    };
    let manifest = blob(&json(layout.join("index.json"))["manifests"][0]);
    serde_json::from_value(blob(&manifest["config"])).expect("a config")
}

/// What umoci and we make of an image config and a root filesystem.
fn both(options: &[&str]) -> Option<(Value, Value)> {
    if !is_installed("umoci") {
        return None;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("etc")).expect("a directory");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:\nweb:x:33:33::/srv:\n").expect("a file");
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nssl:x:44:web\n").expect("a file");
    let image = image(directory.path(), options);
    let theirs = directory.path().join("config.json");
    let status = Command::new("umoci")
        .args([
            "raw",
            "runtime-config",
            "--image",
            &format!("{}:t", directory.path().join("image").display()),
        ])
        .arg("--rootfs")
        .args([&root, &theirs])
        .status();
    assert!(status.expect("umoci").success());
    let spec = SpecBuilder::new(&image)
        .image_annotations(ImageAnnotations::WithLabels)
        .image_volumes(ImageVolumes::Tmpfs)
        .build(&MountsView::directory(&root).expect("a view"))
        .expect("a spec");
    let mut theirs = json(theirs);
    // What an image does not say, umoci says with an empty text, and we not at all.
    theirs["annotations"]
        .as_object_mut()
        .expect("annotations")
        .retain(|_, value| value != "");
    Some((serde_json::to_value(spec).expect("json"), theirs))
}

/// Without what depends on a terminal, and without the home of nobody, which umoci leaves for runc to add.
fn set(list: &Value) -> BTreeSet<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts
        .filter(|text| !text.starts_with("TERM=") && *text != "HOME=/")
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_image_config_means_what_umoci_takes_it_for() {
    let cases: [&[&str]; 4] = [
        &[
            "--config.user=web:ssl",
            "--config.entrypoint=/entry",
            "--config.entrypoint=-e",
            "--config.cmd=cmd",
            "--config.env=A=1",
            "--config.env=PATH=/x",
            "--config.workingdir=/srv/app",
            "--config.label=a.b=c",
            "--config.exposedports=80/tcp",
            "--config.stopsignal=SIGQUIT",
            "--config.volume=/data",
            "--author=me",
        ],
        &["--config.cmd=sh", "--config.user=web"],
        &["--config.entrypoint=sh", "--config.user=33"],
        &["--config.cmd=sh", "--config.user=1234:5678", "--config.workingdir=/"],
    ];
    for options in cases {
        let Some((ours, theirs)) = both(options) else { return };
        assert_eq!(ours["process"]["args"], theirs["process"]["args"], "{options:?}");
        assert_eq!(ours["process"]["cwd"], theirs["process"]["cwd"], "{options:?}");
        assert_eq!(
            ours["process"]["user"]["uid"], theirs["process"]["user"]["uid"],
            "{options:?}"
        );
        assert_eq!(
            ours["process"]["user"]["gid"], theirs["process"]["user"]["gid"],
            "{options:?}"
        );
        assert_eq!(ours["annotations"], theirs["annotations"], "{options:?}");
        assert_eq!(
            set(&ours["process"]["env"]),
            set(&theirs["process"]["env"]),
            "{options:?}"
        );
        let data = |spec: &Value| {
            spec["mounts"]
                .as_array()
                .expect("mounts")
                .iter()
                .any(|m| m["destination"] == "/data")
        };
        assert_eq!(data(&ours), data(&theirs), "{options:?}");
    }
}

/// containerd 1.6 is older than some of the paths that are hidden here, so those may be more.
#[test]
fn defaults_are_no_looser_than_containerds() {
    let Ok(output) = Command::new("ctr").args(["oci", "spec"]).output() else {
        longshore_testing::skip("containerd is not installed");
        return;
    };
    let theirs: Value = serde_json::from_slice(&output.stdout).expect("json");
    let spec = SpecBuilder::without_image()
        .args(["sh"])
        .build(&NoFiles)
        .expect("a spec");
    let ours = serde_json::to_value(spec).expect("json");
    for kind in ["bounding", "effective", "permitted"] {
        let held = |spec: &Value| set(&spec["process"]["capabilities"][kind]);
        assert_eq!(held(&ours), held(&theirs), "{kind}");
    }
    let masked: BTreeSet<String> = default_masked_paths().into_iter().collect();
    assert!(set(&theirs["linux"]["maskedPaths"]).is_subset(&masked));
    let readonly: BTreeSet<String> = default_readonly_paths().into_iter().collect();
    assert_eq!(set(&theirs["linux"]["readonlyPaths"]), readonly);
    let mount = |spec: &Value, at: &str| {
        let mounts = spec["mounts"].as_array().expect("mounts").iter();
        let mount = mounts.clone().find(|mount| mount["destination"] == at).expect(at);
        (mount["type"].clone(), set(&mount["options"]))
    };
    for at in ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys"] {
        assert_eq!(mount(&ours, at), mount(&theirs, at), "{at}");
    }
}
