//! Images of every make, from docker-registry, unpacked by us and by umoci and containerd: the trees are the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, stream};
use longshore::Engine;
use longshore::distribution::load_archive;
use longshore::snapshot::Labels;
use longshore_testing::{require_root, require_tool, skip};

use crate::common::Tree;
use crate::layout::Layout;
use crate::makes::{MAKES, Make, Way, make_all};
use crate::tools::{containerd, docker_registry, sh};

fn require() -> Result<(), String> {
    require_root()?;
    for tool in [
        "umoci",
        "skopeo",
        "buildah",
        "docker-registry",
        "containerd",
        "ctr",
        "setfattr",
    ] {
        require_tool(tool)?;
    }
    Ok(())
}

/// Does `work` on a thread with a mount namespace of its own, which ends with it: the machine sees none of its mounts.
fn in_own_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("a mount namespace");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The tree of an image that the engine has, as its mounts show it.
async fn our_tree(engine: &Engine, key: &str, chain_id: &str, folder: &Path) -> Tree {
    let view = engine.snapshotter.view(key, Some(chain_id), Labels::new());
    let mounts = view.await.expect("a view");
    let [mount] = mounts.as_slice() else {
        panic!("more than one mount: {mounts:?}")
    };
    let scratch = tempfile::tempdir_in(folder).expect("a folder");
    let (target, short) = (scratch.path().join("m"), scratch.path().join("l"));
    for folder in [&target, &short] {
        std::fs::create_dir(folder).expect("a folder");
    }
    // mount(2) takes one page of options, which a hundred layers do not fit into by their own names.
    let shorten = |(number, path): (usize, &str)| {
        let link = short.join(number.to_string());
        std::os::unix::fs::symlink(path, &link).expect("a link");
        link.display().to_string()
    };
    let options = mount
        .options
        .iter()
        .filter_map(|option| match option.strip_prefix("lowerdir=") {
            Some(layers) => {
                let layers: Vec<_> = layers.split(':').enumerate().map(shorten).collect();
                Some(format!("lowerdir={}", layers.join(":")))
            }
            None => (!matches!(option.as_str(), "rbind" | "ro")).then(|| option.clone()),
        });
    let options = options.collect::<Vec<_>>().join(",");
    let tree = in_own_mounts(|| {
        use nix::mount::MsFlags;
        let (kind, flags) = match mount.fs_type.as_str() {
            "bind" => (None, MsFlags::MS_BIND | MsFlags::MS_REC),
            kind => (Some(kind), MsFlags::MS_RDONLY),
        };
        nix::mount::mount(Some(&mount.source), &target, kind, flags, Some(options.as_str())).expect("mounted");
        Tree::read(&target)
    });
    engine.snapshotter.remove(key).await.expect("the view goes");
    tree
}

/// The same without times of directories: containerd 1.6 gives those that a later layer only passes through the time of the unpacking.
fn without_directory_times(tree: Tree) -> Tree {
    let directories: Vec<String> = tree
        .0
        .iter()
        .filter(|(_, line)| line.starts_with("mode=4"))
        .map(|(path, _)| path.clone())
        .collect();
    tree.without_mtime(|path| directories.iter().any(|directory| directory == path))
}

/// What is the unpacker's own when no layer describes the root.
fn without_root(mut tree: Tree) -> Tree {
    tree.0.remove("");
    tree
}

/// What the images are brought to and read with.
struct Bench {
    folder: PathBuf,
    layout: Layout,
    host: String,
    engine: Engine,
    ctr: String,
}

impl Bench {
    /// Where an image is in the registry.
    fn name(&self, make: &Make) -> String {
        format!("{}/suite/{}:1", self.host, make.name)
    }

    fn archive(&self, make: &Make) -> PathBuf {
        self.folder.join(format!("{}.tar", make.name))
    }

    /// Brings an image to where all read it.
    async fn bring(&self, make: &Make) {
        let (from, name) = (self.layout.tag_of(make.name), self.name(make));
        let options = match make.way {
            Way::Copied => "--preserve-digests",
            Way::Skopeo(options) => options,
            Way::Archive => {
                let file = self.archive(make);
                sh(&format!(
                    "skopeo copy -q {from} docker-archive:{}:{name}",
                    file.display()
                ));
                let file = std::fs::File::open(file).expect("the archive");
                let loaded = load_archive(self.engine.content.clone(), file).await.expect("loaded");
                assert_eq!(loaded[0].name.as_deref(), Some(name.as_str()));
                let name = name.parse().expect("a reference");
                let (pusher, content) = (&*self.engine.pusher, &*self.engine.content);
                longshore::distribution::push_image(pusher, content, &name, &loaded[0].target)
                    .await
                    .expect("pushed");
                return;
            }
        };
        sh(&format!(
            "skopeo copy -q {options} --dest-tls-verify=false {from} docker://{name}"
        ));
    }

    async fn compare(&self, make: &Make) {
        self.bring(make).await;
        let image = self
            .engine
            .pull(self.name(make))
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", make.name));
        let ours =
            without_root(our_tree(&self.engine, make.name, image.chain_id().expect("layers"), &self.folder).await);
        assert!(!ours.0.is_empty(), "{}: there is something to compare", make.name);
        if make.umoci.is_ok() {
            let target = self.folder.join("umoci").join(make.name);
            let layout = self.layout.path.display();
            sh(&format!(
                "mkdir -p {0}; umoci unpack --image {layout}:{1} {0} >/dev/null",
                target.display(),
                make.name
            ));
            let theirs = without_root(Tree::read(&target.join("rootfs")));
            theirs.assert_same(&ours, &format!("{}: umoci expected, ours got", make.name));
        }
        if make.containerd.is_err() && make.umoci.is_ok() {
            return;
        }
        if make.containerd.is_err() {
            let source = without_root(Tree::read(&self.folder.join(make.name)));
            source.assert_same(&ours, &format!("{}: its source expected, ours got", make.name));
            return;
        }
        let theirs = without_directory_times(without_root(self.containerds_tree(make)));
        theirs.assert_same(
            &without_directory_times(ours),
            &format!("{}: containerd expected, ours got", make.name),
        );
    }

    fn containerds_tree(&self, make: &Make) -> Tree {
        let (ctr, name) = (&self.ctr, self.name(make));
        let bring = match make.way {
            Way::Archive => format!("{ctr} images import {}", self.archive(make).display()),
            _ => format!("{ctr} images pull --plain-http {name}"),
        };
        in_own_mounts(|| {
            let target = tempfile::tempdir_in(&self.folder).expect("a folder");
            let target = target.path().display();
            sh(&format!(
                "{bring} >/dev/null; {ctr} images mount {name} {target} >/dev/null"
            ));
            Tree::read(Path::new(&target.to_string()))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_every_make_are_the_same_trees() {
    if let Err(why) = require() {
        return skip(&why);
    }
    // A short name: what a path may have is counted with it.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let layout = make_all(path);
    let (_registry, host) = docker_registry(path);
    let (_containerd, socket) = containerd(path);
    let bench = Bench {
        folder: path.to_owned(),
        layout,
        host,
        engine: Engine::open(path.join("engine")).await.expect("an engine"),
        ctr: format!("ctr -a {}", socket.display()),
    };
    // All are tried, so that one run tells all differences; each panics for itself.
    let bench = Arc::new(bench);
    let cases = MAKES.iter().map(|make| {
        let bench = bench.clone();
        async move {
            tokio::spawn(async move { bench.compare(make).await })
                .await
                .err()
                .map(|_| make.name)
        }
    });
    let outcomes: Vec<_> = stream::iter(cases).buffer_unordered(2).collect().await;
    let failed: Vec<_> = outcomes.into_iter().flatten().collect();
    assert!(failed.is_empty(), "see above: {failed:?}");
}
