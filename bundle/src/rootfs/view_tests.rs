use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_linux::Mount;
use tempfile::TempDir;

use super::*;
use crate::ErrorKind;

const LIMIT: u64 = 1 << 20;

fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
    }
    root
}

fn overlay(layers: &[&TempDir]) -> MountsView {
    let lower: Vec<String> = layers[1..]
        .iter()
        .map(|layer| layer.path().display().to_string())
        .collect();
    let mount = Mount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        target: None,
        options: vec![
            format!("upperdir={}", layers[0].path().display()),
            format!("lowerdir={}", lower.join(":")),
        ],
    };
    MountsView::new(&[mount]).expect("a view")
}

fn text(view: &MountsView, path: &str) -> Option<String> {
    let bytes = view
        .read(Path::new(path), LIMIT)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes.map(|bytes| String::from_utf8(bytes).expect("text"))
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn a_directory_is_read() {
    let root = tree(&[("etc/passwd", "root")]);
    let view = MountsView::new(&[Mount::bind(root.path())]).expect("a view");
    assert_eq!(text(&view, "/etc/passwd").as_deref(), Some("root"));
    assert_eq!(text(&view, "etc/../etc//./passwd").as_deref(), Some("root"));
    for absent in ["/etc/group", "/etc/passwd/x", "/nope/../etc/x", "/etc", "/"] {
        assert_eq!(text(&view, absent), None, "{absent}");
    }
}

#[test]
fn links_stay_inside() {
    let secret = tree(&[("secret", "of the host")]);
    let root = tree(&[("etc/real", "inside"), ("a/b/c/deep", "deep")]);
    let path = |name: &str| root.path().join(name);
    let absolute = secret.path().join("secret");
    symlink(&absolute, path("etc/absolute")).expect("a link");
    symlink("../../../../../../../../../../../../etc/hostname", path("etc/dots")).expect("a link");
    symlink("/etc/real", path("etc/passwd")).expect("a link");
    symlink("../../../../etc/real", path("etc/up")).expect("a link");
    symlink("/a/b", path("ab")).expect("a link");
    symlink("../ab/c/../c/./deep", path("etc/deep")).expect("a link");
    symlink("/proc/self/root/etc/hostname", path("etc/magic")).expect("a link");
    let view = MountsView::directory(root.path()).expect("a view");
    assert_eq!(text(&view, "/etc/passwd").as_deref(), Some("inside"));
    assert_eq!(text(&view, "/etc/up").as_deref(), Some("inside"));
    assert_eq!(text(&view, "/etc/deep").as_deref(), Some("deep"));
    for outside in ["/etc/absolute", "/etc/dots", "/etc/magic", "/../../etc/hostname"] {
        assert_eq!(text(&view, outside), None, "{outside}");
    }
}

#[test]
fn circles_end() {
    let root = tree(&[]);
    symlink("b", root.path().join("a")).expect("a link");
    symlink("a", root.path().join("b")).expect("a link");
    symlink("x/..", root.path().join("self")).expect("a link");
    fs::create_dir(root.path().join("x")).expect("a directory");
    // Each of them names itself many times: 40 links with hundreds of steps each.
    symlink("x/../".repeat(600) + "bomb", root.path().join("bomb")).expect("a link");
    let view = MountsView::directory(root.path()).expect("a view");
    for circle in ["/a", "/b", "/bomb"] {
        let error = view.read(Path::new(circle), LIMIT).expect_err(circle);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(text(&view, "/self"), None);
}

#[test]
fn only_files_are_opened_and_only_short_ones() {
    let root = tree(&[("big", &"x".repeat(1001)), ("fits", &"x".repeat(1000))]);
    let path = |name: &str| root.path().join(name).display().to_string();
    assert!(run("mkfifo", &[&path("pipe")]));
    let _listener = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
    symlink("pipe", path("link")).expect("a link");
    let view = MountsView::directory(root.path()).expect("a view");
    assert_eq!(
        view.read(Path::new("/fits"), 1000)
            .expect("it fits")
            .map(|bytes| bytes.len()),
        Some(1000)
    );
    for path in ["/big", "/pipe", "/socket", "/link"] {
        let error = view.read(Path::new(path), 1000).expect_err(path);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    if run("mknod", &[&path("zero"), "c", "1", "5"]) {
        view.read(Path::new("/zero"), 1000).expect_err("a device");
    } else {
        longshore_testing::skip("making a device node needs root");
    }
}

#[test]
fn upper_hides_lower_and_directories_merge() {
    let upper = tree(&[
        ("etc/passwd", "upper"),
        ("now-a-directory/x", "x"),
        ("now-a-file", "file"),
    ]);
    let middle = tree(&[
        ("etc/passwd", "middle"),
        ("etc/group", "middle"),
        ("now-a-directory", "file"),
    ]);
    let lower = tree(&[
        ("etc/group", "lower"),
        ("etc/shadow", "lower"),
        ("now-a-file/y", "y"),
        ("now-a-directory/z", "z"),
    ]);
    symlink("/etc/group", upper.path().join("link")).expect("a link");
    let view = overlay(&[&upper, &middle, &lower]);
    assert_eq!(text(&view, "/etc/passwd").as_deref(), Some("upper"));
    assert_eq!(text(&view, "/etc/group").as_deref(), Some("middle"));
    assert_eq!(text(&view, "/etc/shadow").as_deref(), Some("lower"));
    assert_eq!(text(&view, "/link").as_deref(), Some("middle"));
    assert_eq!(text(&view, "/now-a-file").as_deref(), Some("file"));
    assert_eq!(text(&view, "/now-a-file/y"), None);
    assert_eq!(text(&view, "/now-a-directory/x").as_deref(), Some("x"));
    assert_eq!(text(&view, "/now-a-directory/z"), None);
}

/// The same questions to the view and to the kernel's overlay, with whiteouts and opaque directories in each form.
#[test]
fn a_view_answers_as_the_kernel_does() {
    let upper = tree(&[("opaque/new", "upper"), ("plain/new", "upper")]);
    let lower = tree(&[
        ("gone", "l"),
        ("etc/gone", "l"),
        ("opaque/old", "l"),
        ("plain/old", "l"),
        ("dir/in", "l"),
        ("kept", "l"),
    ]);
    fs::create_dir(upper.path().join("etc")).expect("a directory");
    let path = |name: &str| upper.path().join(name).display().to_string();
    let made = ["gone", "etc/gone", "dir"]
        .iter()
        .all(|name| run("mknod", &[&path(name), "c", "0", "0"]));
    if !made
        || !run(
            "setfattr",
            &["-n", "trusted.overlay.opaque", "-v", "y", &path("opaque")],
        )
    {
        longshore_testing::skip("whiteouts and trusted attributes need root");
        return;
    }
    let view = overlay(&[&upper, &lower]);
    let questions = [
        "gone",
        "etc/gone",
        "opaque/old",
        "opaque/new",
        "plain/old",
        "plain/new",
        "dir/in",
        "kept",
    ];
    let answers: Vec<Option<String>> = questions.iter().map(|path| text(&view, path)).collect();
    let found: Vec<bool> = answers.iter().map(Option::is_some).collect();
    assert_eq!(found, [false, false, false, true, true, true, false, true]);
    match kernels_answers(&upper, &lower, &questions) {
        Some(kernel) => assert_eq!(answers, kernel),
        None => longshore_testing::skip("an overlay can't be mounted here"),
    }
}

/// Asks an overlay that is mounted in a mount namespace of its own, and so leaves nothing behind.
fn kernels_answers(upper: &TempDir, lower: &TempDir, questions: &[&str]) -> Option<Vec<Option<String>>> {
    let work = tempfile::tempdir().expect("a directory");
    let merged = work.path().join("m");
    let mut command = format!(
        "set -e; mount -t tmpfs tmpfs {0}; mkdir {0}/m {0}/w {0}/u; cp -a {1}/. {0}/u; \
         mount -t overlay overlay -o lowerdir={2},upperdir={0}/u,workdir={0}/w {0}/m;",
        work.path().display(),
        upper.path().display(),
        lower.path().display()
    );
    for question in questions {
        let path: PathBuf = merged.join(question);
        command += &format!(
            " if test -f {0}; then printf '+'; cat {0}; else printf '-'; fi; echo;",
            path.display()
        );
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &command])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let answers = String::from_utf8(output.stdout).expect("text");
    Some(
        answers
            .lines()
            .map(|line| line.strip_prefix('+').map(str::to_owned))
            .collect(),
    )
}

#[test]
fn marks_of_an_unprivileged_overlay_are_known() {
    let upper = tree(&[("opaque/new", "upper"), ("whiteout", "")]);
    let lower = tree(&[("opaque/old", "lower"), ("whiteout", "lower")]);
    let path = |name: &str| upper.path().join(name).display().to_string();
    let marked = run("setfattr", &["-n", "user.overlay.opaque", "-v", "y", &path("opaque")])
        && run(
            "setfattr",
            &["-n", "user.overlay.whiteout", "-v", "y", &path("whiteout")],
        );
    if !marked {
        longshore_testing::skip("no user attributes in the temporary directory");
        return;
    }
    let mut mount = Mount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        target: None,
        options: vec![format!(
            "lowerdir={}:{}",
            upper.path().display(),
            lower.path().display()
        )],
    };
    let blind = MountsView::new(std::slice::from_ref(&mount)).expect("a view");
    assert_eq!(text(&blind, "/opaque/old").as_deref(), Some("lower"));
    mount.options.push("userxattr".into());
    let view = MountsView::new(&[mount]).expect("a view");
    assert_eq!(text(&view, "/opaque/old"), None);
    assert_eq!(text(&view, "/opaque/new").as_deref(), Some("upper"));
    assert_eq!(text(&view, "/whiteout"), None);
}

#[test]
fn what_is_no_directory_of_the_host_is_refused() {
    let root = tree(&[]);
    let erofs = Mount {
        fs_type: "erofs".into(),
        source: "/image".into(),
        ..Mount::default()
    };
    let below = Mount {
        target: Some("usr".into()),
        ..Mount::bind(root.path())
    };
    for mounts in [vec![], vec![erofs], vec![Mount::bind(root.path()), below]] {
        assert_eq!(
            MountsView::new(&mounts).expect_err("refused").kind(),
            ErrorKind::Unsupported
        );
    }
    assert_eq!(
        MountsView::new(&[Mount::bind("/nope")]).expect_err("absent").kind(),
        ErrorKind::NotFound
    );
}
