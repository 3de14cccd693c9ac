//! Roots that are mounted for the container alone.

mod support;

use std::fs;
use std::path::PathBuf;

use longshore_linux::Mount;
use longshore_runtime::{DeleteMode, Error, Executor, Io, ProcessId};
use serde_json::{Value, json};
use support::{Place, chain, new_id, not_mounted_here, place, spec};

/// An overlay of `layers` empty layers and the test's root filesystem; the upper layer is in `upper`.
fn overlay(place: &Place, layers: usize, deep: &str) -> (Vec<Mount>, PathBuf) {
    let at = place.dir.path().join(deep);
    let mut lower = Vec::new();
    for i in 0..layers {
        let layer = at.join(format!("layer{i}"));
        fs::create_dir_all(&layer).expect("a directory");
        fs::write(layer.join(format!("file{i}")), i.to_string()).expect("a file");
        lower.push(layer.to_str().expect("text").to_owned());
    }
    lower.push(place.dir.path().join("rootfs").to_str().expect("text").to_owned());
    let (upper, work) = (at.join("upper"), at.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).expect("a directory");
    }
    let mount = Mount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        ..Mount::default()
    }
    .option(format!("lowerdir={}", lower.join(":")))
    .option(format!("upperdir={}", upper.display()))
    .option(format!("workdir={}", work.display()));
    (vec![mount], upper)
}

async fn run_on(place: &Place, mounts: Vec<Mount>, spec: &Value) -> Result<(u32, String), Error> {
    let id = new_id();
    let (io, mut ends) = Io::pipe()?;
    place
        .executor
        .create(place.request(&id, spec, io).rootfs(mounts))
        .await?;
    place.executor.start(&id).await?;
    let exit = place.executor.wait(&id, &ProcessId::Init).await?;
    place.executor.delete(&id, DeleteMode::Stopped).await?;
    let mut out = String::new();
    std::io::Read::read_to_string(&mut ends.stdout, &mut out).expect("text");
    std::io::Read::read_to_string(&mut ends.stderr, &mut out).expect("text");
    Ok((exit.code, out))
}

#[tokio::test]
async fn an_overlay_is_the_containers_alone() {
    let Some(place) = place() else { return };
    let (mounts, upper) = overlay(&place, 3, "o");
    let script = spec(&[
        "sh",
        "-c",
        "cat /file0 /file2; echo new > /written; grep -c ' / overlay\\| - overlay' /proc/self/mountinfo",
    ]);
    let (code, out) = run_on(&place, mounts, &script)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!((code, out.as_str()), (0, "021\n"));
    assert_eq!(
        fs::read_to_string(upper.join("written")).expect("it is in the upper layer"),
        "new\n"
    );
    not_mounted_here(&place);
}

/// The most that an overlay may have.
const MANY: usize = 500;

#[tokio::test]
async fn more_layers_than_a_page_of_options_can_name() {
    let Some(place) = place() else { return };
    let (mounts, _) = overlay(
        &place,
        MANY - 1,
        "a-directory-with-a-rather-long-name/and-another-one-inside-of-it",
    );
    read_of_many(&place, mounts).await;
}

/// No name of one is short enough to be told by itself, so they go by mount(2), as on kernels that can't be told them one by one.
#[tokio::test]
async fn more_layers_than_a_page_of_options_can_name_by_mount() {
    let Some(place) = place() else { return };
    let (mounts, _) = overlay(&place, MANY - 1, &format!("{0}/{0}", "x".repeat(130)));
    read_of_many(&place, mounts).await;
}

async fn read_of_many(place: &Place, mounts: Vec<Mount>) {
    let options: usize = mounts[0].options.iter().map(String::len).sum();
    assert!(options > 4096, "{options}");
    let script = spec(&["sh", "-c", "cat /file0 /file249 /file498; pwd"]);
    let (code, out) = run_on(place, mounts, &script)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!((code, out.as_str()), (0, "0249498/\n"));
    not_mounted_here(place);
}

#[tokio::test]
async fn options_too_long_for_the_mount_api_go_by_mount() {
    let Some(place) = place() else { return };
    let (mounts, upper) = overlay(&place, 1, &format!("{0}/{0}", "x".repeat(120)));
    let (code, out) = run_on(
        &place,
        mounts,
        &spec(&["sh", "-c", "cat /file0; touch /x; ls -a /.. | wc -l; ls -a / | wc -l"]),
    )
    .await
    .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(code, 0, "{out}");
    let lines: Vec<_> = out.trim_start_matches('0').lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert!(upper.join("x").exists());
    not_mounted_here(&place);
}

#[tokio::test]
async fn an_overlay_serves_a_user_namespace() {
    let Some(place) = place() else { return };
    let (mounts, _) = overlay(&place, 2, "o");
    let mut script = spec(&["sh", "-c", "cat /file0 /file1; cat /proc/self/uid_map"]);
    script["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    script["linux"]["uidMappings"] = map.clone();
    script["linux"]["gidMappings"] = map;
    let (code, out) = run_on(&place, mounts, &script)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(code, 0, "{out}");
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["01", "0", "100000", "65536"]
    );
    not_mounted_here(&place);
}

#[tokio::test]
async fn a_second_mount_goes_into_the_root_and_a_read_only_one_stays_so() {
    let Some(place) = place() else { return };
    let data = place.dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("f"), "inside").expect("a file");
    let root = Mount::bind(place.dir.path().join("rootfs")).option("ro");
    let second = Mount {
        target: Some(PathBuf::from("/tmp")),
        ..Mount::bind(&data)
    };
    let script = spec(&["sh", "-c", "cat /tmp/f; touch /x || echo refused"]);
    let (_, out) = run_on(&place, vec![root, second], &script)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert!(out.starts_with("insiderefused\n"), "{out}");
}
