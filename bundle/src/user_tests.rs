use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::ErrorKind;

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\nbob:x:1001:100::/home/bob:\n";
const GROUP: &str = "root:x:0:root\nusers:x:100:\nwheel:x:10:alice,bob\naudio:x:29:xalice,alice\nalice:x:1000:\n";

fn files(passwd: &str, group: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    BTreeMap::from([
        ("/etc/passwd".into(), passwd.into()),
        ("/etc/group".into(), group.into()),
    ])
}

fn resolve(user: &str, passwd: &str, group: &str) -> Result<ResolvedUser> {
    user.parse::<UserSpec>()?.resolve(&files(passwd, group))
}

fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
    let user = resolve(user, PASSWD, GROUP).expect(user);
    (user.uid, user.gid, user.additional_gids, user.home)
}

#[test]
fn every_form_of_a_user() {
    assert_eq!(ids(""), (0, 0, vec![0], "/root".into()));
    assert_eq!(ids("root"), (0, 0, vec![0], "/root".into()));
    assert_eq!(ids("alice"), (1000, 1000, vec![1000, 10, 29], "/home/alice".into()));
    assert_eq!(ids("1000"), (1000, 1000, vec![1000, 10, 29], "/home/alice".into()));
    assert_eq!(ids("bob"), (1001, 100, vec![100, 10], "/home/bob".into()));
    assert_eq!(ids("alice:users"), (1000, 100, vec![100], "/home/alice".into()));
    assert_eq!(ids("alice:100"), (1000, 100, vec![100], "/home/alice".into()));
    assert_eq!(ids("1000:wheel"), (1000, 10, vec![10], "/home/alice".into()));
    assert_eq!(ids("4242"), (4242, 0, vec![0], "/".into()));
    assert_eq!(ids("4242:4343"), (4242, 4343, vec![4343], "/".into()));
    assert_eq!(ids(":users"), (0, 100, vec![100], "/root".into()));
    assert_eq!(ids("alice:"), (1000, 1000, vec![1000, 10, 29], "/home/alice".into()));
}

#[test]
fn names_must_be_known_and_numbers_need_not() {
    assert!(matches!(resolve("carol", PASSWD, GROUP), Err(Error::UnknownUser(name)) if name == "carol"));
    assert!(matches!(resolve("alice:admins", PASSWD, GROUP), Err(Error::UnknownGroup(name)) if name == "admins"));
    let empty = BTreeMap::<PathBuf, Vec<u8>>::new();
    let user = "12:34"
        .parse::<UserSpec>()
        .expect("a user")
        .resolve(&empty)
        .expect("no files are needed");
    assert_eq!((user.uid, user.gid, user.home.as_str()), (12, 34, "/"));
    "alice"
        .parse::<UserSpec>()
        .expect("a user")
        .resolve(&empty)
        .expect_err("nobody is known");
}

#[test]
fn what_is_no_user() {
    for text in [
        "a:b:c",
        "-1",
        "2147483648",
        "4294967295",
        "4294967296",
        "99999999999",
        "alice:-5",
        "alice:4294967295",
        "a\0",
        "a\nb",
    ] {
        assert_eq!(
            text.parse::<UserSpec>().expect_err(text).kind(),
            ErrorKind::Invalid,
            "{text:?}"
        );
    }
}

/// A line that lacks a number must not make its user root, as a parser that defaults to 0 would.
#[test]
fn malformed_lines_are_no_users() {
    let hostile = [
        "alice",
        "alice:x",
        "alice:x:",
        "alice:x::",
        "alice:x:0",
        "alice:x:abc:0::/:/bin/sh",
        "alice:x:-1:0::/:/bin/sh",
        "alice:x: 0:0::/:/bin/sh",
        "alice:x:4294967296:0::/:/bin/sh",
        "alice:x:4294967295:0::/:/bin/sh",
        "alice:x:0x0:0::/:/bin/sh",
        "alice:x:+0:0::/:/bin/sh",
        "+alice:x:0:0::/:/bin/sh",
        "#alice:x:0:0::/:/bin/sh",
        "alice\0:x:0:0::/:/bin/sh",
    ];
    for line in hostile {
        let passwd = format!("{line}\n");
        assert!(
            matches!(resolve("alice", &passwd, ""), Err(Error::UnknownUser(_))),
            "{line:?}"
        );
        let passwd = format!("{line}\nalice:x:1000:1000::/home/alice:/bin/sh\n");
        assert_eq!(resolve("alice", &passwd, "").expect(line).uid, 1000, "{line:?}");
    }
    let long = format!("alice:x:0:{}\n", "9".repeat(100_000));
    resolve("alice", &long, "").expect_err("no such gid");
}

#[test]
fn malformed_groups_are_no_groups() {
    let group = "wheel\nwheel:x\nwheel:x:\nwheel:x:-1:alice\nwheel:x:4294967295:alice\n:x:0:alice\nwheel:x:10:alice\n";
    assert_eq!(resolve("alice:wheel", PASSWD, group).expect("the whole line").gid, 10);
    assert_eq!(
        resolve("alice", PASSWD, group).expect("the whole line").additional_gids,
        [1000, 10]
    );
}

#[test]
fn the_first_entry_wins() {
    let passwd = "alice:x:1000:1000::/one:\nalice:x:0:0::/two:\nmallory:x:1000:0::/three:\n";
    assert_eq!(resolve("alice", passwd, "").expect("alice").home, "/one");
    assert_eq!(resolve("1000", passwd, "").expect("alice").gid, 1000);
}

#[test]
fn a_number_is_never_a_name() {
    let passwd = "1000:x:0:0::/root:/bin/sh\n";
    let user = resolve("1000", passwd, "").expect("a number");
    assert_eq!((user.uid, user.gid), (1000, 0));
    let group = "7:x:0:\n";
    assert_eq!(resolve("0:7", passwd, group).expect("a number").gid, 7);
}

#[test]
fn homes_of_no_use_are_left_out() {
    for home in ["", "relative", "~", "\u{fffd}"] {
        let passwd = format!("alice:x:1:1::{home}:\n");
        assert_eq!(resolve("alice", &passwd, "").expect("alice").home, "/");
    }
    let mut passwd = b"alice:x:1:1::/\xff\xfe:\n".to_vec();
    passwd.extend_from_slice(b"bob:x:2:2\n");
    let files = BTreeMap::from([(PathBuf::from("/etc/passwd"), passwd)]);
    assert_eq!(
        "alice"
            .parse::<UserSpec>()
            .expect("a user")
            .resolve(&files)
            .expect("alice")
            .home,
        "/"
    );
    assert_eq!(
        "bob"
            .parse::<UserSpec>()
            .expect("a user")
            .resolve(&files)
            .expect("bob")
            .home,
        "/"
    );
}

#[test]
fn more_groups_than_the_kernel_takes_are_refused() {
    let group: String = (1..=70_000).map(|gid| format!("g:x:{gid}:a\n")).collect();
    let error = resolve("a", "a:x:0:0::/:\n", &group).expect_err("too many");
    assert!(error.to_string().contains("65536"), "{error}");
}

#[test]
fn a_group_to_add_is_a_name_or_a_number() {
    let files = files(PASSWD, GROUP);
    assert_eq!(resolve_group("audio", &files).expect("audio"), 29);
    assert_eq!(resolve_group("7", &files).expect("7"), 7);
    resolve_group("", &files).expect_err("empty");
    resolve_group("nope", &files).expect_err("unknown");
}

proptest::proptest! {
    /// Whatever the files hold: no panic, and nobody becomes root but by a line that says so.
    #[test]
    fn any_bytes_are_survived(passwd: Vec<u8>, group: Vec<u8>, user in "[a-z]{1,4}(:[a-z]{1,4})?") {
        let files = BTreeMap::from([(PathBuf::from("/etc/passwd"), passwd), (PathBuf::from("/etc/group"), group)]);
        let _ = user.parse::<UserSpec>().expect("a user").resolve(&files);
    }
}
