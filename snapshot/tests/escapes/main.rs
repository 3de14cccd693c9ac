//! Layers that were once a way out of some unpacker, each applied by our snapshotters with a canary tree beside them that must not change.
//!
//! The cases are those of containerd's archive breakout tests ([`containerd`]), of published vulnerabilities of programs that unpack
//! tar archives ([`advisories`]), and shapes that have no number ([`shapes`]); the table of each is in its module's docs, and a test holds the tables to the cases.
//!
//! Each is tried on three targets (see [`jail::Place`]): the whole copy of the native snapshotter, the upper directory of an overlay, and an upper directory
//! that had the base's files before. After each, whether it was applied or refused:
//! - nothing beside the snapshot changed: no content, mode, owner, time, link count, attribute, new or missing file;
//! - the committed snapshot that it was made from did not change either;
//! - what the layer may do inside of its root came about there, as the case says.
//!
//! Not of this kind, and tested elsewhere or without a meaning for us: CVE-2014-6408 (security options in an image: `bundle` reads none), CVE-2015-3629 and CVE-2015-3630
//! (mounts of the executor), CVE-2018-15664 and CVE-2019-14271 (`docker cp` into a running container: we have none), CVE-2022-23648 (volumes of an image),
//! CVE-2021-37713 (drives of Windows).
#![allow(clippy::unwrap_used)]

mod advisories;
mod case;
#[path = "../common/mod.rs"]
mod common;
mod containerd;
mod jail;
mod shapes;

use case::Case;
use common::skip_unless_root;
use jail::{Jail, Place};

/// Runs every case on every target; tells all that went wrong at once.
async fn run(cases: Vec<Case>) {
    if skip_unless_root() {
        return;
    }
    let mut wrong = Vec::new();
    let count = cases.len() * Place::ALL.len();
    for case in cases {
        for place in Place::ALL {
            if let Err(what) = Jail::new(place).await.attack(&case).await {
                wrong.push(format!("{} on {place:?}: {what}", case.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} attempts:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The table in a module's docs has exactly the names of its cases.
fn assert_table(docs: &str, cases: &[Case]) {
    let table: Vec<&str> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next())
        .filter(|name| !name.starts_with("---") && *name != "case")
        .collect();
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(table, names);
}

#[tokio::test]
async fn the_cases_of_containerd() {
    run(containerd::cases()).await;
}

#[tokio::test]
async fn published_vulnerabilities() {
    run(advisories::cases()).await;
}

#[tokio::test]
async fn shapes_without_a_number() {
    run(shapes::cases()).await;
}

#[test]
fn the_tables_name_the_cases() {
    assert_table(include_str!("containerd.rs"), &containerd::cases());
    assert_table(include_str!("advisories.rs"), &advisories::cases());
    assert_table(include_str!("shapes.rs"), &shapes::cases());
}

/// CVE-2021-41103 and CVE-2024-25621 of containerd: other users of the machine could walk into the snapshots, and start what is set-uid in them.
#[tokio::test]
async fn nobody_else_gets_into_the_snapshots() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let native = longshore_snapshot::NativeSnapshotter::open(temp.path().join("a/native"))
        .await
        .unwrap();
    for dir in [native.root().to_owned(), native.root().join("snapshots")] {
        assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

/// The canary does sing: a change of each kind beside the snapshot is seen.
#[tokio::test]
async fn the_canary_sees_what_it_must() {
    use std::os::unix::fs::PermissionsExt;
    if skip_unless_root() {
        return;
    }
    let changes: [fn(&std::path::Path); 6] = [
        |outside| std::fs::write(outside.join("new"), "").unwrap(),
        |outside| std::fs::write(outside.join("secret"), "SECRET").unwrap(),
        |outside| std::fs::remove_file(outside.join("etc/passwd")).unwrap(),
        |outside| std::fs::set_permissions(outside.join("dir"), std::fs::Permissions::from_mode(0o777)).unwrap(),
        |outside| std::fs::hard_link(outside.join("secret"), outside.join("../linked")).unwrap(),
        |outside| std::os::unix::fs::lchown(outside.join("setuid"), Some(7), Some(7)).unwrap(),
    ];
    for change in changes {
        let jail = Jail::new(Place::Native).await;
        assert_eq!(jail.check(), Ok(()));
        change(&jail.outside());
        assert!(jail.check().is_err());
    }
}
