//! umoci writes `dir` as a file and `dir/.wh.name` for a directory that became a file: the whiteout hides nothing and is no error.

use longshore_linux::Mount;
use longshore_snapshot::{ApplyOptions, apply_layer};

fn layer(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // An ordinary user can give files to nobody else.
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        tar.append_data(&mut header, name, *bytes).expect("appended");
    }
    tar.into_inner().expect("a layer")
}

#[test]
fn a_whiteout_below_a_file_hides_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("was-dir")).expect("a directory");
    std::fs::write(folder.path().join("was-dir/name"), "old").expect("a file in it");
    let mounts = [Mount::bind(folder.path())];
    let bytes = layer(&[
        ("was-dir", b"now a file"),
        ("was-dir/.wh.name", b""),
        ("other/.wh.nothing", b""),
    ]);
    apply_layer(&mounts, &bytes[..], &ApplyOptions::default()).expect("applied");
    assert_eq!(
        std::fs::read(folder.path().join("was-dir")).expect("a file"),
        b"now a file"
    );
}
