//! The suites of the ports. Each function panics with what does not hold. Those of [`MetadataStore`] take an empty store, and [`all`] calls them all; that of
//! [`Collectible`] is [`collectible`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::join_all;
use oci_spec::image::{Descriptor, Digest, MediaType};

use crate::{
    Batch, Collectible, Container, Entry, Error, ErrorKind, Filters, Found, Image, Key, Kind, Labels, MetadataStore,
    MetadataStoreExt, Precondition, Put, Record, Removed, Resource, Value,
};

/// The whole suite, each part on an empty store of its own.
pub async fn all<F: Future<Output = Arc<dyn MetadataStore>>>(make: impl Fn() -> F) {
    records_come_back(&*make().await).await;
    batches_are_whole_or_nothing(&*make().await).await;
    preconditions_are_checked(&*make().await).await;
    bad_names_are_refused(&*make().await).await;
    namespaces_are_apart(&*make().await).await;
    views_stand_still(&*make().await).await;
    changes_are_told(&*make().await).await;
    removals_fence(&*make().await).await;
    sugar_works(&*make().await).await;
    writers_do_not_lose_updates(make().await).await;
    filters_choose(&*make().await).await;
    masks_leave_the_rest(&*make().await).await;
    namespaces_are_recorded(&*make().await).await;
}

fn digest(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

fn descriptor(number: u8) -> Descriptor {
    let digest: Digest = digest(number).parse().expect("a digest");
    Descriptor::new(MediaType::ImageManifest, 7, digest)
}

fn image(number: u8) -> Value {
    Value::Image(Box::new(Image {
        target: descriptor(number),
    }))
}

fn labels(value: &str) -> Labels {
    BTreeMap::from([("label".to_owned(), value.to_owned())])
}

async fn must_get(store: &dyn MetadataStore, key: &Key) -> Record {
    let record = store.get(key).await.expect("get");
    record.unwrap_or_else(|| panic!("{key} is not there"))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind) {
    let error = result.expect_err("a refusal");
    assert_eq!(error.kind(), kind, "{error}");
}

/// What was put is read again; a second put keeps `created`; revisions grow; an empty batch changes nothing.
pub async fn records_come_back(store: &dyn MetadataStore) {
    let key = Key::image("ns", "name");
    assert_eq!(store.get(&key).await.expect("get"), None);
    assert_eq!(store.list("ns", Kind::Image).await.expect("list"), []);
    assert_eq!(store.namespaces().await.expect("namespaces"), [""; 0]);

    let empty = store.apply(Batch::new()).await.expect("an empty batch");
    let first = store
        .apply(Batch::new().put(key.clone(), labels("1"), image(1)))
        .await
        .expect("put");
    assert!(first > empty, "a batch makes a revision");
    let one = must_get(store, &key).await;
    assert_eq!(
        (&one.key, &one.labels, &one.value, one.revision),
        (&key, &labels("1"), &image(1), first)
    );

    let second = store
        .apply(Batch::new().put(key.clone(), labels("2"), image(2)))
        .await
        .expect("put again");
    assert!(second > first, "revisions grow");
    let two = must_get(store, &key).await;
    assert_eq!(
        (&two.labels, &two.value, two.revision, two.created),
        (&labels("2"), &image(2), second, one.created)
    );
    assert!(two.updated >= one.updated);
    assert_eq!(store.list("ns", Kind::Image).await.expect("list"), [two]);

    store.apply(Batch::new().delete(key.clone())).await.expect("delete");
    assert_eq!(store.get(&key).await.expect("get"), None);
    refused(store.apply(Batch::new().delete(key)).await, ErrorKind::NotFound);
}

/// A batch that fails at its end has changed nothing; ops see the ones before them.
pub async fn batches_are_whole_or_nothing(store: &dyn MetadataStore) {
    let (a, b) = (Key::image("ns", "a"), Key::image("ns", "b"));
    let failing = Batch::new().put(a.clone(), Labels::new(), image(1)).delete(b.clone());
    refused(store.apply(failing).await, ErrorKind::NotFound);
    assert_eq!(store.get(&a).await.expect("get"), None);

    let within = Batch::new()
        .put(a.clone(), Labels::new(), image(1))
        .put(b.clone(), Labels::new(), image(2))
        .delete(a.clone());
    store.apply(within).await.expect("ops see the ones before them");
    assert_eq!(store.get(&a).await.expect("get"), None);
    assert_eq!(must_get(store, &b).await.value, image(2));
}

/// Each kind of precondition, held and not held.
pub async fn preconditions_are_checked(store: &dyn MetadataStore) {
    let (a, b) = (Key::image("ns", "a"), Key::image("ns", "b"));
    let put = |condition| Batch::new().require(condition).put(b.clone(), Labels::new(), image(2));
    let made = store
        .apply(Batch::new().create(a.clone(), Labels::new(), image(1)))
        .await
        .expect("create");
    refused(
        store
            .apply(Batch::new().create(a.clone(), Labels::new(), image(1)))
            .await,
        ErrorKind::AlreadyExists,
    );
    refused(
        store.apply(put(Precondition::Absent(a.clone()))).await,
        ErrorKind::AlreadyExists,
    );
    refused(
        store.apply(put(Precondition::Present(b.clone()))).await,
        ErrorKind::NotFound,
    );
    refused(
        store.apply(put(Precondition::Revision(b.clone(), made))).await,
        ErrorKind::NotFound,
    );
    refused(
        store.apply(put(Precondition::Revision(a.clone(), made + 1))).await,
        ErrorKind::Conflict,
    );
    refused(
        store.apply(put(Precondition::StoreRevision(made + 1))).await,
        ErrorKind::Conflict,
    );
    assert_eq!(store.get(&b).await.expect("get"), None, "nothing was changed");

    for condition in [
        Precondition::Present(a.clone()),
        Precondition::Revision(a, made),
        Precondition::Absent(Key::image("ns", "c")),
    ] {
        store.apply(put(condition)).await.expect("a precondition that holds");
    }
    let now = store.apply(Batch::new()).await.expect("the revision");
    store
        .apply(put(Precondition::StoreRevision(now)))
        .await
        .expect("a precondition that holds");
    refused(
        store.apply(put(Precondition::StoreRevision(now))).await,
        ErrorKind::Conflict,
    );
}

/// Names and labels that are not allowed, and values of another kind than their key.
pub async fn bad_names_are_refused(store: &dyn MetadataStore) {
    let long = BTreeMap::from([("k".to_owned(), "v".repeat(4096))]);
    for batch in [
        Batch::new().put(Key::image("", "a"), Labels::new(), image(1)),
        Batch::new().put(Key::image("a/b", "a"), Labels::new(), image(1)),
        Batch::new().put(Key::image("ns", ""), Labels::new(), image(1)),
        Batch::new().put(Key::image("ns", "a\n"), Labels::new(), image(1)),
        Batch::new().put(Key::image("ns", "a"), long, image(1)),
        Batch::new().put(
            Key::container("ns", "../a"),
            Labels::new(),
            Value::Container(Box::default()),
        ),
        Batch::new().put(Key::container("ns", "a"), Labels::new(), image(1)),
        Batch::new().put(Key::content("ns", "no-digest"), Labels::new(), Value::Labels),
    ] {
        refused(store.apply(batch).await, ErrorKind::Invalid);
    }
    assert_eq!(store.namespaces().await.expect("namespaces"), [""; 0]);
}

/// The same name in two namespaces and kinds is several records; lists are ordered; one namespace's name begins with the other's.
pub async fn namespaces_are_apart(store: &dyn MetadataStore) {
    for namespace in ["a", "a-b", "b"] {
        for name in ["2", "1", "10"] {
            let batch = Batch::new()
                .put(Key::image(namespace, name), labels(namespace), image(1))
                .put(
                    Key::container(namespace, name),
                    labels(namespace),
                    Value::Container(Box::default()),
                );
            store.apply(batch).await.expect("put");
        }
    }
    store.ensure_namespace("declared").await.expect("ensure");
    store.ensure_namespace("declared").await.expect("twice");
    assert_eq!(
        store.namespaces().await.expect("namespaces"),
        ["a", "a-b", "b", "declared"]
    );
    for namespace in ["a", "a-b", "b"] {
        for kind in [Kind::Image, Kind::Container] {
            let list = store.list(namespace, kind).await.expect("list");
            assert_eq!(
                list.iter().map(|r| r.key.id.as_str()).collect::<Vec<_>>(),
                ["1", "10", "2"]
            );
            assert!(list.iter().all(|r| r.labels == labels(namespace) && r.key.kind == kind));
        }
        assert_eq!(store.list(namespace, Kind::Lease).await.expect("list"), []);
    }
}

/// A view shows one state, whatever is written afterwards; scanning it page by page shows all of it in order.
pub async fn views_stand_still(store: &dyn MetadataStore) {
    let mut keys: Vec<_> = (0..10)
        .map(|n| Key::image(if n % 2 == 0 { "a" } else { "b" }, n.to_string()))
        .collect();
    for key in &keys {
        store
            .apply(Batch::new().put(key.clone(), Labels::new(), image(1)))
            .await
            .expect("put");
    }
    keys.sort();
    let view = store.view().await.expect("view");
    let revision = store.apply(Batch::new()).await.expect("the revision");
    assert_eq!(view.revision(), revision);
    for key in &keys {
        store.apply(Batch::new().delete(key.clone())).await.expect("delete");
    }
    store
        .apply(Batch::new().put(Key::image("a", "new"), Labels::new(), image(1)))
        .await
        .expect("put");

    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = view.scan(after.as_ref(), 3).await.expect("scan");
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 3);
        after = Some(last.key.clone());
        seen.extend(page.into_iter().map(|record| record.key));
    }
    assert_eq!(seen, keys);
    assert!(view.get(&keys[0]).await.expect("get").is_some());
    assert_eq!(view.get(&Key::image("a", "new")).await.expect("get"), None);
    assert_eq!(view.revision(), revision);
    assert_eq!(
        store
            .view()
            .await
            .expect("view")
            .scan(None, 100)
            .await
            .expect("scan")
            .len(),
        1
    );
}

/// What was written since a revision, and only that.
pub async fn changes_are_told(store: &dyn MetadataStore) {
    let put = |name: &str, number| Batch::new().put(Key::image("ns", name), Labels::new(), image(number));
    store.apply(put("a", 1)).await.expect("put");
    let since = store.apply(put("b", 1)).await.expect("put");
    let changed = async |since| {
        let changed = store.view().await.expect("view").changed(since).await.expect("changed");
        changed.into_iter().map(|record| record.key.id).collect::<Vec<_>>()
    };
    assert_eq!(changed(since).await, [""; 0]);
    for (name, number) in [("d", 1), ("c", 1), ("d", 2), ("a", 1)] {
        store.apply(put(name, number)).await.expect("put");
    }
    assert_eq!(
        changed(since).await,
        ["c", "d", "a"],
        "each once, ordered by the revision that wrote it last"
    );
    assert_eq!(changed(0).await, ["b", "c", "d", "a"]);
    store
        .apply(Batch::new().delete(Key::image("ns", "c")))
        .await
        .expect("delete");
    assert_eq!(changed(since).await, ["d", "a"]);
    assert_eq!(changed(u64::MAX).await, [""; 0]);
}

/// While a removal stands, no new reference to its resource is taken; old ones may be put again.
pub async fn removals_fence(store: &dyn MetadataStore) {
    let (doomed, snapshot) = (Resource::Content(digest(1)), Resource::snapshot("overlay", "key"));
    store
        .put_image("ns", "old", descriptor(1), Labels::new())
        .await
        .expect("put");
    store.create_lease("ns", "lease", None).await.expect("lease");
    let mut fence = Batch::new();
    for resource in [&doomed, &snapshot] {
        fence = fence.create(Key::removal(resource), Labels::new(), Value::Labels);
    }
    store.apply(fence).await.expect("fence");

    refused(
        store.put_image("ns", "new", descriptor(1), Labels::new()).await,
        ErrorKind::Conflict,
    );
    refused(
        store.add_to_lease("ns", "lease", std::slice::from_ref(&doomed)).await,
        ErrorKind::Conflict,
    );
    refused(
        store.label_content("ns", &digest(1), Labels::new()).await,
        ErrorKind::Conflict,
    );
    let refers = BTreeMap::from([("containerd.io/gc.ref.content.0".to_owned(), digest(1))]);
    refused(store.label_content("ns", &digest(2), refers).await, ErrorKind::Conflict);
    let container = Container {
        snapshotter: "overlay".into(),
        snapshot: "key".into(),
        ..Container::default()
    };
    refused(
        store
            .create_container("ns", "c", container.clone(), Labels::new())
            .await,
        ErrorKind::Conflict,
    );
    store
        .put_image("ns", "old", descriptor(1), labels("new"))
        .await
        .expect("the reference is not new");
    store
        .put_image("ns", "other", descriptor(2), Labels::new())
        .await
        .expect("of another resource");

    let lift = Batch::new()
        .delete(Key::removal(&doomed))
        .delete(Key::removal(&snapshot));
    store.apply(lift).await.expect("lift the fence");
    store.add_to_lease("ns", "lease", &[doomed]).await.expect("free again");
    store
        .create_container("ns", "c", container, Labels::new())
        .await
        .expect("free again");
}

/// The typed conveniences.
pub async fn sugar_works(store: &dyn MetadataStore) {
    let put = async |number, text| {
        store
            .put_image("ns", "a", descriptor(number), labels(text))
            .await
            .expect("put")
    };
    assert_eq!(put(1, "x").await, Put::Created);
    assert_eq!(put(1, "x").await, Put::Unchanged);
    assert_eq!(put(2, "x").await, Put::Updated);
    let entry = store.image("ns", "a").await.expect("get").expect("there");
    assert_eq!(
        (entry.name.as_str(), entry.value.target, entry.labels),
        ("a", descriptor(2), labels("x"))
    );
    assert_eq!(store.images("ns").await.expect("list").len(), 1);
    store.delete_image("ns", "a").await.expect("delete");
    refused(store.delete_image("ns", "a").await, ErrorKind::NotFound);

    let held = [Resource::Content(digest(1)), Resource::snapshot("native", "k")];
    store.create_lease("ns", "l", None).await.expect("lease");
    refused(store.create_lease("ns", "l", None).await, ErrorKind::AlreadyExists);
    refused(store.add_to_lease("ns", "none", &held).await, ErrorKind::NotFound);
    store.add_to_lease("ns", "l", &held).await.expect("add");
    store.hold("ns", "l", &held[..1]).await.expect("add twice");
    assert_eq!(store.leases("ns").await.expect("leases")[0].value.resources, held);
    store.remove_from_lease("ns", "l", &held[..1]).await.expect("remove");
    store
        .renew_lease("ns", "l", Some(std::time::SystemTime::UNIX_EPOCH))
        .await
        .expect("renew");
    let lease = store.leases("ns").await.expect("leases").remove(0).value;
    assert_eq!(
        (lease.resources.as_slice(), lease.expires),
        (&held[1..], Some(std::time::SystemTime::UNIX_EPOCH))
    );
    store.delete_lease("ns", "l").await.expect("delete");
    store.delete_lease("ns", "l").await.expect("twice");
}

/// Many at once change one record; none is lost.
pub async fn writers_do_not_lose_updates(store: Arc<dyn MetadataStore>) {
    store.create_lease("ns", "shared", None).await.expect("lease");
    let add = |number| {
        let store = Arc::clone(&store);
        async move {
            store
                .add_to_lease("ns", "shared", &[Resource::Content(digest(number))])
                .await
        }
    };
    for result in join_all((0..32).map(add)).await {
        result.expect("every change gets through");
    }
    assert_eq!(store.leases("ns").await.expect("leases")[0].value.resources.len(), 32);
}

/// Filters in containerd's syntax see each kind's fields.
pub async fn filters_choose(store: &dyn MetadataStore) {
    for (name, number) in [("alpine:3", 1), ("alpine:4", 2), ("debian", 2)] {
        store
            .put_image("ns", name, descriptor(number), labels(name))
            .await
            .expect("put");
    }
    let names = async |texts: &[&str]| {
        let filters = Filters::parse(texts).expect("filters");
        let found = store.filtered::<Image>("ns", &filters).await.expect("filtered");
        found.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&["name~=^alpine"]).await, ["alpine:3", "alpine:4"]);
    assert_eq!(names(&["name~=^alpine,labels.label==\"alpine:4\""]).await, ["alpine:4"]);
    assert_eq!(
        names(&[&format!("target.digest=={}", digest(2))]).await,
        ["alpine:4", "debian"]
    );
    assert_eq!(
        names(&["name==debian", "labels.label~=3$"]).await,
        ["alpine:3", "debian"]
    );
    assert_eq!(names(&["labels.other"]).await, [""; 0]);
    assert_eq!(names(&[]).await.len(), 3);
    let container = Container {
        image: "debian".into(),
        ..Container::default()
    };
    store
        .create_container("ns", "web-1", container, labels("x"))
        .await
        .expect("create");
    let filters = Filters::parse(["id~=^web,image==debian"]).expect("filters");
    assert_eq!(
        store
            .filtered::<Container>("ns", &filters)
            .await
            .expect("filtered")
            .len(),
        1
    );
    assert_eq!(
        store
            .filtered::<Container>("other", &filters)
            .await
            .expect("filtered")
            .len(),
        0
    );
}

/// An update of some fields leaves the others to whoever wrote them; one of all is refused when somebody did.
pub async fn masks_leave_the_rest(store: &dyn MetadataStore) {
    store
        .create_container("ns", "c", Container::default(), labels("old"))
        .await
        .expect("create");
    let read = async || store.container("ns", "c").await.expect("get").expect("there");
    let mut mine = read().await;
    let mut theirs = mine.clone();
    theirs.labels.insert("theirs".into(), "1".into());
    theirs.value.image = "theirs".into();
    store
        .update("ns", &theirs, &["labels.theirs", "image"])
        .await
        .expect("update");

    mine.labels.insert("label".into(), "mine".into());
    mine.labels.insert("not named".into(), "x".into());
    mine.value.extensions.insert("a.b".into(), serde_json::json!(7));
    mine.value.image = "not named".into();
    store
        .update("ns", &mine, &["labels.label", "extensions.a.b"])
        .await
        .expect("update");
    let now = read().await;
    let expected = [("label", "mine"), ("theirs", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(now.labels, BTreeMap::from(expected));
    assert_eq!((now.value.image.as_str(), now.value.extensions.len()), ("theirs", 1));

    refused(store.update("ns", &mine, &[]).await, ErrorKind::Conflict);
    refused(store.update("ns", &mine, &["id"]).await, ErrorKind::Invalid);
    assert_eq!(read().await.value, now.value, "a bad field changes nothing");
    let mut all = read().await;
    all.labels.clear();
    store.update("ns", &all, &[]).await.expect("nobody wrote it since");
    store
        .update("ns", &mine, &["labels.none"])
        .await
        .expect("a label that is in neither");
    assert!(read().await.labels.is_empty());
    let missing = Entry {
        name: "nobody".into(),
        ..mine
    };
    refused(store.update("ns", &missing, &["labels"]).await, ErrorKind::NotFound);
}

/// Namespaces have labels, and go only when nothing is in them.
pub async fn namespaces_are_recorded(store: &dyn MetadataStore) {
    assert_eq!(store.namespace_labels("ns").await.expect("get"), None);
    store.ensure_namespace("ns").await.expect("ensure");
    store.ensure_namespace("ns").await.expect("twice");
    store.label_namespace("ns", labels("x")).await.expect("label");
    store.ensure_namespace("ns").await.expect("its labels stay");
    assert_eq!(store.namespace_labels("ns").await.expect("get"), Some(labels("x")));
    store.create_lease("ns", "l", None).await.expect("lease");
    let error = store.delete_namespace("ns").await.expect_err("not empty");
    assert!(
        error.kind() == ErrorKind::Conflict && error.to_string().contains("lease 'l'"),
        "{error}"
    );
    store.delete_lease("ns", "l").await.expect("delete");
    store.delete_namespace("ns").await.expect("empty");
    refused(store.delete_namespace("ns").await, ErrorKind::NotFound);
    assert_eq!(store.namespaces().await.expect("namespaces"), [""; 0]);
}

/// The suite of the [`Collectible`] port: of a resource that `make` has just made and nothing uses.
pub async fn collectible<F: Future<Output = Resource>>(store: &dyn Collectible, make: impl Fn() -> F) {
    let listed = async |resource: &Resource| {
        let all: Vec<Found> = store.list().try_collect().await.expect("a list");
        all.iter().any(|found| found.resource == *resource)
    };
    let resource = make().await;
    assert!(store.owns(&resource), "it owns what it has");
    assert!(!store.owns(&Resource::custom("none-of-yours", "x")));
    assert!(listed(&resource).await, "what is there is listed");
    store.size(&resource).await.expect("a size");
    store.in_use().await.expect("what is used");
    let missing = store.remove(&resource).await.expect("remove");
    assert_eq!(missing, Removed::Gone);
    assert!(!listed(&resource).await, "what is gone is not listed");
    let edges = store.edges(std::slice::from_ref(&resource)).await.expect("edges");
    assert_eq!(edges, [vec![]], "what is gone refers to nothing");
    assert_eq!(
        store.remove(&resource).await.expect("remove"),
        Removed::Gone,
        "twice is no error"
    );
    let again = make().await;
    let asked = [resource, again.clone(), again.clone()];
    let edges = store.edges(&asked).await.expect("edges");
    assert_eq!((edges.len(), &edges[1]), (3, &edges[2]), "an answer for each, in order");
    store.remove(&again).await.expect("remove");
}
