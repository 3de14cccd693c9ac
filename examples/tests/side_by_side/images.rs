use std::path::Path;

use longshore::distribution::{export_layout, push_image};
use longshore::snapshot::Labels;
use longshore::{Engine, Io};
use longshore_testing::{require_root, require_tool, skip};

use crate::tools::{DESCRIBE, containerd, docker_registry, sh};

/// What the tests here need, or the reason to skip.
pub(crate) fn require() -> Result<(), String> {
    require_root()?;
    for tool in [
        "umoci",
        "skopeo",
        "docker-registry",
        "containerd",
        "ctr",
        "busybox",
        "getfattr",
        "setfattr",
        "setcap",
    ] {
        require_tool(tool)?;
    }
    Ok(())
}

/// An image with what images have: several layers that change, replace and delete, links, devices, modes, attributes, holes, long names.
pub(crate) fn make_image(folder: &Path) {
    sh(&format!(
        r#"
cd {folder}
umoci init --layout layout
umoci new --image layout:test
umoci unpack --image layout:test bundle >/dev/null
root=bundle/rootfs
mkdir -p $root/bin $root/etc $root/dev $root/tmp $root/var/lib/opaque $root/var/lib/deleted $root/proc $root/sys
cp "$(command -v busybox)" $root/bin/busybox
for name in sh ls cat id echo; do ln $root/bin/busybox $root/bin/$name; done
chmod 1777 $root/tmp
printf 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n' >$root/etc/passwd
printf 'root:x:0:\nalice:x:1000:\nwheel:x:10:alice\n' >$root/etc/group
echo setuid >$root/bin/tool; chown 0:10 $root/bin/tool; chmod 6755 $root/bin/tool
echo capable >$root/bin/capable; setcap cap_net_raw+ep $root/bin/capable
echo owned >$root/etc/owned; chown 1000:1000 $root/etc/owned; chmod 0600 $root/etc/owned
setfattr -n user.note -v value $root/etc/owned
ln -s /etc/owned $root/etc/link; ln -s ../nowhere $root/etc/dangling
mknod $root/dev/node c 1 3; mkfifo $root/tmp/fifo
truncate -s 64M $root/var/lib/sparse; echo end >>$root/var/lib/sparse
name=$(printf 'x%.0s' $(seq 200)); mkdir -p $root/var/lib/$name; echo long >$root/var/lib/$name/$name
echo old >$root/var/lib/replaced; echo old >$root/var/lib/opaque/file; echo old >$root/var/lib/deleted/file
touch -d '2001-02-03 04:05:06.123456789' $root/etc/owned
umoci repack --refresh-bundle --image layout:test bundle >/dev/null
rm -r $root/var/lib/deleted $root/var/lib/replaced; mkdir $root/var/lib/replaced; echo in >$root/var/lib/replaced/file
rm -r $root/var/lib/opaque; mkdir $root/var/lib/opaque; echo new >$root/var/lib/opaque/new
chmod 0700 $root/var/lib/opaque; echo changed >>$root/etc/owned; rm $root/bin/echo
umoci repack --refresh-bundle --image layout:test bundle >/dev/null
mkdir $root/var/lib/deleted; echo again >$root/var/lib/deleted/other; ln $root/etc/owned $root/etc/second
umoci repack --refresh-bundle --image layout:test bundle >/dev/null
umoci config --image layout:test --config.cmd /bin/id --config.user alice --config.env GREETING=hello --config.workingdir /tmp
rm -rf bundle
"#,
        folder = folder.display()
    ));
}

/// Runs a script that can `describe`, in a mount namespace that ends with it: the machine sees none of its mounts.
fn in_own_mounts(script: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{DESCRIBE}\n{script}\n")).expect("the script");
    sh(&format!("unshare -m bash -euo pipefail {}", file.path().display()))
}

/// The tree of a view of our snapshot, mounted in a namespace that ends with the description.
async fn our_tree(engine: &Engine, chain_id: &str) -> String {
    let mounts = engine
        .snapshotter
        .view("compare", Some(chain_id), Labels::new())
        .await
        .expect("a view");
    let [mount] = mounts.as_slice() else {
        panic!("more than one mount: {mounts:?}")
    };
    let target = tempfile::tempdir().expect("a folder");
    let described = in_own_mounts(&format!(
        "mount -t {} {} -o '{}' {t}; describe {t}",
        mount.fs_type,
        mount.source.display(),
        mount.options.join(","),
        t = target.path().display()
    ));
    engine.snapshotter.remove("compare").await.expect("the view goes");
    described
}

fn assert_same_tree(ours: &str, theirs: &str, whose: &str) {
    let differences: Vec<String> = ours
        .lines()
        .filter(|line| !theirs.lines().any(|other| other == *line))
        .map(|line| format!("ours   {line}"))
        .chain(
            theirs
                .lines()
                .filter(|line| !ours.lines().any(|other| other == *line))
                .map(|line| format!("{whose} {line}")),
        )
        .collect();
    assert!(
        differences.is_empty(),
        "our tree differs from {whose}'s:\n{}",
        differences.join("\n")
    );
    assert!(
        ours.lines().count() > 30,
        "the tree is too small to tell anything:\n{ours}"
    );
}

fn without_directory_times(tree: &str) -> String {
    let keep = |line: &str| match line.contains(" type=d ") {
        true => line.split(" mtime=").next().unwrap_or_default().to_owned() + "\n",
        false => line.to_owned() + "\n",
    };
    tree.lines().map(keep).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_umoci_by_skopeo_from_docker_registry_is_the_same_tree_and_runs() {
    if let Err(why) = require() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    make_image(path);
    let (_registry, host) = docker_registry(path);
    let p = path.display();
    sh(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:{p}/layout:test docker://{host}/team/app:1"
    ));

    let engine = Engine::open(path.join("engine")).await.expect("an engine");
    let image = engine.pull(format!("{host}/team/app:1")).await.expect("pulled");
    let ours = our_tree(&engine, image.chain_id().expect("layers")).await;

    let theirs = sh(&format!(
        "{DESCRIBE}\ncd {p}; umoci unpack --image layout:test umoci >/dev/null; describe umoci/rootfs"
    ));
    assert_same_tree(&ours, &theirs, "umoci");

    let (_containerd, socket) = containerd(path);
    let theirs = in_own_mounts(&format!(
        "cd {p}; ctr='ctr -a {}'; $ctr images pull --plain-http {host}/team/app:1 >/dev/null; mkdir ctr
         $ctr images mount {host}/team/app:1 ctr >/dev/null; describe ctr",
        socket.display()
    ));
    // containerd 1.6 gives directories that a later layer only passes through the time of the unpacking; umoci and we keep their own.
    assert_same_tree(
        &without_directory_times(&ours),
        &without_directory_times(&theirs),
        "containerd",
    );

    let log = path.join("log");
    let container = engine
        .container("side-by-side")
        .image(&image)
        .io(Io::file(&log))
        .create()
        .await
        .expect("created");
    let status = container.run().await.expect("run");
    let output = std::fs::read_to_string(&log).expect("the log");
    assert!(status.success(), "{output}");
    assert_eq!(
        output.trim(),
        "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_export_and_push_skopeo_and_umoci_read() {
    if let Err(why) = require() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    make_image(path);
    let (_registry, host) = docker_registry(path);
    let p = path.display();
    sh(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:{p}/layout:test docker://{host}/team/app:1"
    ));
    let engine = Engine::open(path.join("engine")).await.expect("an engine");
    let image = engine.pull(format!("{host}/team/app:1")).await.expect("pulled");

    // Our content store is a layout by itself; the export adds the tag.
    export_layout(&*engine.content, image.target(), "ours", path.join("exported"))
        .await
        .expect("exported");
    let digest = image.target().digest();
    let read = sh(&format!(
        "skopeo inspect --raw oci:{p}/exported:ours | sha256sum | cut -d' ' -f1"
    ));
    assert_eq!(read.trim(), digest.digest(), "skopeo reads the manifest byte for byte");
    sh(&format!("skopeo copy -q oci:{p}/exported:ours oci:{p}/copied:ours"));
    let ours = sh(&format!(
        "{DESCRIBE}\ncd {p}; umoci unpack --image exported:ours a >/dev/null; describe a/rootfs"
    ));
    let theirs = sh(&format!(
        "{DESCRIBE}\ncd {p}; umoci unpack --image layout:test b >/dev/null; describe b/rootfs"
    ));
    assert_same_tree(&ours, &theirs, "the original");

    let name = format!("{host}/pushed/app:2").parse().expect("a reference");
    push_image(&*engine.pusher, &*engine.content, &name, image.target())
        .await
        .expect("pushed");
    let read = sh(&format!(
        "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{host}/pushed/app:2"
    ));
    assert_eq!(
        read.trim(),
        digest.to_string(),
        "the registry has it under the same digest"
    );
    sh(&format!(
        "skopeo copy -q --src-tls-verify=false docker://{host}/pushed/app:2 oci:{p}/back:2"
    ));
}
