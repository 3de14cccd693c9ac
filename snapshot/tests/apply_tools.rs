//! Layers made by GNU tar, unpacked by us, compared with the tree that they were made from.

mod common;

use std::process::Command;

use common::{Tree, skip_unless_root};
use longshore_linux::Mount;
use longshore_snapshot::{ApplyOptions, apply_layer};

#[test]
fn gnu_tar_of_a_real_tree() {
    if skip_unless_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let script = r#"
        set -e
        cp -a /etc etc; cp -a /usr/share/perl5 perl 2>/dev/null || true
        mkdir -p dev links "deep/$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))"
        mknod dev/null c 1 3; mknod dev/loop b 7 0; mkfifo dev/pipe
        echo hi > links/a; ln links/a links/b; ln -s a links/s; ln links/s links/s2
        ln -s "$(printf 'x%.0s' $(seq 300))" links/long
        echo setuid > suid; chown 12:34 suid; chmod 6755 suid; mkdir sticky; chmod 1777 sticky
        chown 3000000:3000001 links/b
        cp /bin/true capable; setcap cap_net_raw=ep capable 2>/dev/null || setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 capable
        setfattr -n user.note -v "hello there" capable; setfattr -n trusted.note -v t sticky
        touch -d '1969-12-31 23:59:58.25 UTC' old; touch -d '2100-01-02 03:04:05.123456789 UTC' new
        truncate -s 3G sparse; printf data | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none
        printf end | dd of=sparse bs=1 seek=3000000000 conv=notrunc status=none
        touch "$(printf 'latin-\xe9')"; touch 'new
line'
        chmod 0 old; touch -d '2001-02-03 04:05:06.5 UTC' links dev sticky deep .
    "#;
    assert!(
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .current_dir(&tree)
            .status()
            .unwrap()
            .success()
    );
    let expected = Tree::read(&tree);
    assert!(expected.0.len() > 100);

    for (name, format, compress) in [
        ("pax-1.0", "--format=pax --sparse-version=1.0", "gzip"),
        ("pax-0.1", "--format=pax --sparse-version=0.1", "cat"),
        ("pax-0.0", "--format=pax --sparse-version=0.0", "zstd"),
    ] {
        let layer = temp.path().join(name);
        let command = format!(
            "tar {format} --sparse --xattrs --xattrs-include='*' --numeric-owner -C {} -cf - . | {compress} > {}",
            tree.display(),
            layer.display()
        );
        assert!(
            Command::new("bash")
                .args(["-o", "pipefail", "-c", &command])
                .status()
                .unwrap()
                .success()
        );
        let target = temp.path().join(format!("{name}-target"));
        std::fs::create_dir(&target).unwrap();
        let file = std::fs::File::open(&layer).unwrap();
        let applied = apply_layer(&[Mount::bind(&target)], file, &ApplyOptions::default()).unwrap();
        expected.assert_same(&Tree::read(&target), name);
        assert_eq!(applied.skipped.xattrs, 0);
        let du = Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(target.join("sparse"))
            .output()
            .unwrap();
        let allocated: u64 = String::from_utf8_lossy(&du.stdout)
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(allocated < 1 << 20, "{name}: holes are kept ({allocated} bytes)");
    }
}
