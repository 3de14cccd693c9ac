//! What a collection keeps and removes, and that it can be stopped anywhere.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{Shelf, Stepped, Steps};
use longshore_metadata::{
    Batch, CollectOptions, Collector, Container, Edge, ErrorKind, Key, Kind, Labels, MemoryStore, MetadataStore,
    MetadataStoreExt, Precondition, RedbStore, Resource, Root, Value,
};
use oci_spec::image::{Descriptor, Digest, MediaType};

const NS: &str = "default";

fn digest(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

fn blob(number: u8) -> Resource {
    Resource::Content(digest(number))
}

fn snapshot(key: &str) -> Resource {
    Resource::snapshot("overlay", key)
}

fn descriptor(number: u8) -> Descriptor {
    Descriptor::new(
        MediaType::ImageManifest,
        7,
        digest(number).parse::<Digest>().expect("a digest"),
    )
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn collector(store: &Arc<MemoryStore>, shelf: &Shelf) -> Collector {
    Collector::new(store.clone()).with(Arc::new(shelf.clone()))
}

/// Image 1 → manifest 1 → config 2 → snapshot b → snapshot a, manifest 1 → layer 3; blobs 8 → 9 that nobody names; snapshot y → x that nobody names.
fn furnished() -> Shelf {
    let shelf = Shelf::default();
    shelf.put(blob(1), [Edge::whole(blob(2)), Edge::leaf(blob(3))]);
    shelf.put(blob(2), [Edge::whole(snapshot("b"))]);
    shelf.put(blob(3), []);
    shelf.put(snapshot("a"), []);
    shelf.put(snapshot("b"), [Edge::whole(snapshot("a"))]);
    shelf.put(blob(8), [Edge::leaf(blob(9))]);
    shelf.put(blob(9), []);
    shelf.put(snapshot("x"), []);
    shelf.put(snapshot("y"), [Edge::whole(snapshot("x"))]);
    shelf
}

fn there(shelf: &Shelf) -> Vec<String> {
    shelf.things().keys().map(ToString::to_string).collect()
}

#[tokio::test]
async fn what_an_image_leads_to_stays_and_the_rest_goes() {
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    store
        .put_image(NS, "one", descriptor(1), Labels::new())
        .await
        .expect("put");
    let collector = collector(&store, &shelf);

    let before = there(&shelf);
    let dry = collector.collect(&CollectOptions::dry_run()).await.expect("a dry run");
    assert_eq!(there(&shelf), before, "a dry run removes nothing");
    let report = collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!(report.removed, dry.removed, "it does what the dry run said");
    assert_eq!(report.freed_bytes(), 40);
    let gone: Vec<_> = report.removed.iter().map(|collected| &collected.resource).collect();
    let at = |resource: Resource| gone.iter().position(|gone| **gone == resource).expect("it went");
    assert!(at(blob(8)) < at(blob(9)), "what refers goes before what it refers to");
    assert!(at(snapshot("y")) < at(snapshot("x")));
    assert_eq!(shelf.things().len(), 5);
    assert_eq!(
        store.list("", Kind::Removal).await.expect("list"),
        [],
        "no fence is left"
    );

    store.delete_image(NS, "one").await.expect("delete");
    collector
        .collect(&CollectOptions::default().batch(1))
        .await
        .expect("a run");
    assert_eq!(there(&shelf), [""; 0]);
}

#[tokio::test]
async fn leases_hold_until_they_expire() {
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    let collector = collector(&store, &shelf);
    store.create_lease(NS, "l", None).await.expect("lease");
    store
        .add_to_lease(NS, "l", &[blob(1), snapshot("y")])
        .await
        .expect("hold");
    collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!(shelf.things().len(), 7, "all but the blobs 8 and 9");

    let flat = Batch::new().put(
        Key::lease(NS, "l"),
        labels(&[("containerd.io/gc.flat", "")]),
        Value::Lease(store.leases(NS).await.expect("leases").remove(0).value),
    );
    store.apply(flat).await.expect("a flat lease");
    collector.collect(&CollectOptions::default()).await.expect("a run");
    let expected = [blob(1), snapshot("x"), snapshot("y")].map(|resource| resource.to_string());
    assert_eq!(
        there(&shelf),
        expected,
        "a snapshot has what it is made from with it, flat or not"
    );

    let past = SystemTime::now() - Duration::from_secs(1);
    store.renew_lease(NS, "l", Some(past)).await.expect("renew");
    let report = collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!((there(&shelf).len(), report.records), (0, vec![Key::lease(NS, "l")]));
    assert_eq!(
        store.leases(NS).await.expect("leases").len(),
        0,
        "an expired lease goes"
    );
}

#[tokio::test]
async fn containerds_labels_are_edges() {
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    let collector = collector(&store, &shelf);
    let cache = Resource::custom("cache", "c");
    shelf.put(cache.clone(), []);
    let root = labels(&[
        ("containerd.io/gc.root", "2026-01-01"),
        ("containerd.io/gc.ref.snapshot.overlay/base", "y"),
        ("containerd.io/gc.ref.cache.0", "c"),
    ]);
    store.label_content(NS, &digest(9), root).await.expect("label");
    // 8 lives as long as 9 does.
    store
        .label_content(NS, &digest(8), labels(&[("containerd.io/gc.bref.content", &digest(9))]))
        .await
        .expect("label");
    // This names 3, but nothing leads to 2.
    store
        .label_content(
            NS,
            &digest(2),
            labels(&[("containerd.io/gc.ref.content.0", &digest(3))]),
        )
        .await
        .expect("label");
    let report = collector.collect(&CollectOptions::default()).await.expect("a run");
    let expected = [blob(8), blob(9), snapshot("x"), snapshot("y"), cache].map(|resource| resource.to_string());
    assert_eq!(there(&shelf), expected);
    assert_eq!(
        report.records,
        [Key::content(NS, digest(2))],
        "labels go with their blob"
    );

    let expire = |seconds: i64| {
        let at = if seconds > 0 {
            "2999-01-01T00:00:00+01:00"
        } else {
            "1999-01-01T00:00:00Z"
        };
        labels(&[("containerd.io/gc.expire", at)])
    };
    store.label_content(NS, &digest(9), expire(1)).await.expect("label");
    collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!(
        there(&shelf),
        [blob(8), blob(9)].map(|resource| resource.to_string()),
        "a root until it expires"
    );
    store
        .put_image(NS, "old", descriptor(9), expire(-1))
        .await
        .expect("put");
    store.label_content(NS, &digest(9), expire(-1)).await.expect("label");
    let report = collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!(there(&shelf), [""; 0]);
    assert!(
        report.records.contains(&Key::image(NS, "old")),
        "an expired image goes: {report:?}"
    );
}

#[tokio::test]
async fn containers_hold_their_image_and_snapshot_and_namespaces_are_apart() {
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    let collector = collector(&store, &shelf);
    let container = Container {
        image_digest: Some(digest(1)),
        snapshotter: "overlay".into(),
        snapshot: "y".into(),
        ..Container::default()
    };
    store
        .create_container("one", "c", container, Labels::new())
        .await
        .expect("create");
    // The labels of another namespace lead nowhere in this one.
    store
        .label_content(
            "two",
            &digest(3),
            labels(&[("containerd.io/gc.ref.content", &digest(9))]),
        )
        .await
        .expect("label");
    let report = collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!(shelf.things().len(), 7);
    assert_eq!(
        report.records,
        [Key::content("two", digest(3))],
        "'two' does not reach it, so its labels go"
    );
    let ways = collector.explain(&snapshot("a")).await.expect("a way");
    assert_eq!(
        ways.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!(
            "container 'c' (namespace 'one') -> content/{} -> content/{} -> snapshot/overlay/b -> snapshot/overlay/a",
            digest(1),
            digest(2)
        )]
    );
    assert_eq!(ways[0].root, Root::Record(Key::container("one", "c")));
    assert_eq!(collector.explain(&blob(9)).await.expect("no way"), []);
}

#[tokio::test]
async fn the_shelf_of_these_tests_conforms() {
    let shelf = Shelf::default();
    longshore_metadata::conformance::collectible(&shelf, || async {
        shelf.put(blob(1), [Edge::leaf(blob(2))]);
        blob(1)
    })
    .await;
}

#[tokio::test]
async fn the_young_are_spared() {
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    let old = CollectOptions::default().min_age(Duration::from_secs(u64::MAX / 4));
    let report = collector(&store, &shelf).collect(&old).await.expect("a run");
    assert!(report.removed.is_empty() && shelf.things().len() == 9);
}

#[tokio::test]
async fn what_can_not_go_stays_and_the_rest_goes() {
    #[derive(Debug)]
    struct Stubborn(Shelf);
    #[async_trait::async_trait]
    impl longshore_metadata::Collectible for Stubborn {
        fn name(&self) -> &str {
            "stubborn things"
        }

        fn owns(&self, resource: &Resource) -> bool {
            self.0.owns(resource)
        }

        fn list(
            &self,
        ) -> futures::stream::BoxStream<'_, Result<longshore_metadata::Found, longshore_metadata::StoreError>> {
            self.0.list()
        }
        async fn edges(&self, of: &[Resource]) -> Result<Vec<Vec<Edge>>, longshore_metadata::StoreError> {
            self.0.edges(of).await
        }
        async fn in_use(&self) -> Result<Vec<Resource>, longshore_metadata::StoreError> {
            Ok(vec![snapshot("y")])
        }
        async fn size(&self, of: &Resource) -> Result<u64, longshore_metadata::StoreError> {
            self.0.size(of).await
        }
        async fn remove(
            &self,
            resource: &Resource,
        ) -> Result<longshore_metadata::Removed, longshore_metadata::StoreError> {
            match *resource == blob(9) {
                true => Err("no".into()),
                false => self.0.remove(resource).await,
            }
        }
    }
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    let collector = Collector::new(store.clone()).with(Arc::new(Stubborn(shelf.clone())));
    let report = collector.collect(&CollectOptions::default()).await.expect("a run");
    let expected = [blob(9), snapshot("x"), snapshot("y")].map(|resource| resource.to_string());
    assert_eq!(there(&shelf), expected, "{report:?}");
    assert_eq!(report.failed, [(blob(9), "no".to_owned())]);
    assert_eq!(
        store.list("", Kind::Removal).await.expect("list"),
        [],
        "its fence is down all the same"
    );
    assert_eq!(
        collector.explain(&snapshot("x")).await.expect("a way")[0].root,
        Root::InUse
    );
}

/// Stopped after each of its steps, it has removed nothing that is held, and the next run finishes.
#[tokio::test]
async fn it_can_be_stopped_after_any_step() {
    for steps in 0.. {
        let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
        store
            .put_image(NS, "one", descriptor(1), Labels::new())
            .await
            .expect("put");
        store
            .create_lease(NS, "old", Some(SystemTime::UNIX_EPOCH))
            .await
            .expect("lease");
        store
            .label_content(NS, &digest(9), labels(&[("a", "b")]))
            .await
            .expect("label");
        let between = Arc::new(Steps::new(steps));
        let stepped = Arc::new(Stepped {
            store: store.clone(),
            shelf: shelf.clone(),
            between: between.clone(),
        });
        let options = CollectOptions::default().batch(1);
        let outcome = Collector::new(stepped.clone()).with(stepped).collect(&options).await;
        for kept in [blob(1), blob(2), blob(3), snapshot("a"), snapshot("b")] {
            assert!(shelf.has(&kept), "{kept} went at step {steps}");
        }
        if outcome.is_ok() {
            assert!(between.left() == 0 && steps > 20, "{steps} stops");
            break;
        }
        let again = collector(&store, &shelf);
        if steps % 2 == 0 {
            again.lift().await.expect("lift");
            assert_eq!(store.list("", Kind::Removal).await.expect("list"), []);
        }
        again.collect(&options).await.expect("a run");
        assert_eq!(shelf.things().len(), 5, "stopped after {steps} steps");
        assert_eq!(store.list("", Kind::Removal).await.expect("list"), []);
        assert_eq!(store.list(NS, Kind::Lease).await.expect("list"), []);
        assert_eq!(store.list(NS, Kind::Content).await.expect("list"), []);
    }
}

/// The same on a file, dropped in the middle of its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_a_file_can_be_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(RedbStore::open(dir.path().join("metadata.redb")).await.expect("open"));
    let shelf = furnished();
    store
        .put_image(NS, "one", descriptor(1), Labels::new())
        .await
        .expect("put");
    let collector = Collector::new(store.clone()).with(Arc::new(shelf.clone()));
    for micros in [0, 100, 500, 1_000, 5_000] {
        let options = CollectOptions::default().batch(1);
        let _ = tokio::time::timeout(Duration::from_micros(micros), collector.collect(&options)).await;
    }
    collector.collect(&CollectOptions::default()).await.expect("a run");
    assert_eq!(shelf.things().len(), 5);
    assert_eq!(store.list("", Kind::Removal).await.expect("list"), []);
}

#[tokio::test]
async fn two_runs_take_turns() {
    let (store, shelf) = (Arc::new(MemoryStore::new()), furnished());
    let collector = collector(&store, &shelf);
    let options = CollectOptions::default().batch(1);
    let (one, two) = tokio::join!(collector.collect(&options), collector.collect(&options));
    let removed = one.expect("a run").removed.len() + two.expect("a run").removed.len();
    assert_eq!((removed, shelf.things().len()), (9, 0));
    let nothing = store
        .apply(Batch::new().require(Precondition::Absent(Key::removal(&blob(1)))))
        .await;
    assert_eq!(nothing.map_err(|error| error.kind()).err(), None::<ErrorKind>);
}
