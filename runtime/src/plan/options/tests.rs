use super::*;

fn sorted(options: &[&str]) -> MountOptions {
    sort_options("mounts[0].options", options.iter().copied()).expect("valid options")
}

const ATIMES: MountAttr = MountAttr::ATIME.union(MountAttr::NODIRATIME);

#[test]
fn the_last_of_two_opposites_wins() {
    assert!(!sorted(&["ro", "rw"]).is_read_only());
    assert!(sorted(&["rw", "ro"]).is_read_only());
    assert_eq!(sorted(&["dirsync", "sync", "async"]).filesystem_bits(), 1 << 7);
    assert_eq!(sorted(&["rro", "rrw"]).tree_attr.clear, MountAttr::RDONLY);
}

#[test]
fn a_new_mount_starts_from_nothing() {
    for (options, expected) in [
        (&["defaults"][..], MountAttr::empty()),
        (&["noatime", "strictatime"][..], MountAttr::STRICTATIME),
        (&["strictatime", "noatime"][..], MountAttr::STRICTATIME),
        (&["strictatime", "nostrictatime", "noatime"][..], MountAttr::NOATIME),
        (&["noatime", "atime", "nodiratime"][..], MountAttr::NODIRATIME),
        (&["ro,nosuid,nodev,noexec,nosymfollow,relatime"][..], PLAIN),
    ] {
        assert_eq!(sorted(options).of_new().set, expected, "{options:?}");
        assert!(sorted(options).of_new().clear.is_empty());
    }
}

#[test]
fn a_copied_mount_keeps_its_attributes_unless_one_is_named() {
    assert_eq!(sorted(&["bind", "rprivate", "rro", "defaults"]).exactly(), None);
    let exactly = |options: &[&str]| sorted(options).exactly().expect("one is named");
    let dev = exactly(&["bind", "dev"]);
    assert_eq!((dev.set, dev.clear), (MountAttr::empty(), PLAIN));
    let ro = exactly(&["bind", "ro", "atime", "diratime"]);
    assert_eq!((ro.set, ro.clear), (MountAttr::RDONLY, PLAIN - MountAttr::RDONLY));
    let relatime = exactly(&["relatime"]);
    assert_eq!((relatime.set, relatime.clear), (MountAttr::empty(), PLAIN | ATIMES));
    let both = exactly(&["nodiratime", "strictatime"]);
    assert_eq!(both.set, MountAttr::NODIRATIME | MountAttr::STRICTATIME);
    assert_eq!(both.clear, PLAIN | MountAttr::ATIME);
}

#[test]
fn where_attributes_are_locked_only_what_is_named_is_cleared() {
    let options = sorted(&["ro", "exec", "symfollow", "nosuid", "suid"]);
    let change = options.as_far_as_unlocked();
    assert_eq!(change.set, MountAttr::RDONLY);
    assert_eq!(
        change.clear,
        MountAttr::NOEXEC | MountAttr::NOSUID | MountAttr::NOSYMFOLLOW
    );
    assert_eq!(options.cleared(), MountAttr::NOEXEC | MountAttr::NOSUID);
}

#[test]
fn recursive_attributes_are_for_the_tree_and_filesystem_options_are_left_over() {
    let options = sorted(&["rbind", "rro", "rslave", "slave", "shared", "size=64k", "mode=755"]);
    assert_eq!(options.bind, Some(Depth::Tree));
    assert_eq!(options.tree_attr.set, MountAttr::RDONLY);
    let expected = [
        (Propagation::Slave, Depth::Tree),
        (Propagation::Slave, Depth::Mount),
        (Propagation::Shared, Depth::Mount),
    ];
    assert_eq!(options.propagation, expected);
    assert_eq!(options.exactly(), None);
    assert_eq!(options.params.len(), 2);
}

#[test]
fn access_times_of_a_tree_are_one_of_three() {
    for (word, expected) in [
        ("ratime", MountAttr::empty()),
        ("rnoatime", MountAttr::NOATIME),
        ("rstrictatime", MountAttr::STRICTATIME),
        ("rnostrictatime", MountAttr::empty()),
        ("rrelatime", MountAttr::empty()),
        ("rnorelatime", MountAttr::empty()),
    ] {
        let tree = sorted(&["rnoatime", "rstrictatime", word]).tree_attr;
        assert_eq!((tree.set, tree.clear), (expected, MountAttr::ATIME), "{word}");
    }
    let tree = sorted(&["rnodiratime", "rnosuid", "rexec", "rsymfollow"]).tree_attr;
    assert_eq!(tree.set, MountAttr::NODIRATIME | MountAttr::NOSUID);
    assert_eq!(tree.clear, MountAttr::NOEXEC | MountAttr::NOSYMFOLLOW);
}

#[test]
fn every_word_that_others_know_is_known() {
    let flags = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec noiversion \
                 nolazytime nomand norelatime nostrictatime nosuid nosymfollow rbind relatime remount ro rw silent strictatime suid sync \
                 symfollow private rprivate shared rshared slave rslave unbindable runbindable rro rrw rnosuid rsuid rnodev rdev rnoexec \
                 rexec rnodiratime rdiratime rrelatime rnorelatime rnoatime ratime rstrictatime rnostrictatime rnosymfollow rsymfollow \
                 tmpcopyup idmap ridmap";
    for word in flags.split_whitespace() {
        let options = sorted(&[word]);
        assert!(options.params.is_empty(), "{word} is left to the filesystem");
        assert!(
            options != MountOptions::default() || word == "defaults",
            "{word} does nothing"
        );
    }
}

#[test]
fn flags_of_a_filesystem_have_names_but_for_one() {
    let names = |options: &[&str]| {
        let flags = sorted(options).filesystem_flags()?;
        Some(
            flags
                .iter()
                .map(|p| p.key.to_string_lossy().into_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        names(&["lazytime", "sync", "silent"]),
        Some(vec!["sync".into(), "lazytime".into()])
    );
    assert_eq!(names(&["sync", "iversion"]), None);
    assert_eq!(names(&["iversion", "noiversion"]), Some(vec![]));
    assert_eq!(sorted(&["mand", "iversion"]).filesystem_bits(), 1 << 6 | 1 << 23);
}

#[test]
fn commas_in_quotes_and_behind_backslashes_divide_nothing() {
    let options = sorted(&["nodev,context=\"system_u:object_r:t:s0:c1,c2\",lowerdir=/a\\,b:/c,ro"]);
    let params: Vec<_> = options
        .params
        .iter()
        .map(|p| (p.key.to_str(), p.value.as_ref().map(|v| v.to_str())))
        .collect();
    assert_eq!(params[0], (Ok("context"), Some(Ok("system_u:object_r:t:s0:c1,c2"))));
    assert_eq!(params[1], (Ok("lowerdir"), Some(Ok("/a\\,b:/c"))));
    assert_eq!(options.of_new().set, MountAttr::NODEV | MountAttr::RDONLY);
}
