//! Random work beside collections that are stopped anywhere, against a plain model: what is held never goes, and what is not goes with the next whole run.
//!
//! `LONGSHORE_MODEL_OPS=1000000 cargo test -p longshore-metadata --test model` does so many operations instead of a few thousand.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use common::{Between, Shelf, Stepped};
use longshore_metadata::{
    Batch, CollectOptions, Collector, Container, Edge, ErrorKind, Image, Key, Kind, Labels, MemoryStore, MetadataStore,
    MetadataStoreExt, Node, Record, Resource, Value,
};
use oci_spec::image::{Descriptor, Digest, MediaType};
use proptest::prelude::*;

const IMAGES: u8 = 5;
const NAMESPACES: [&str; 2] = ["one", "two"];
/// Operations of one case.
const OPS: usize = 60;

fn digest(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

fn blob(number: u8) -> Resource {
    Resource::Content(digest(number))
}

fn snapshot(key: impl ToString) -> Resource {
    Resource::snapshot("overlay", key.to_string())
}

/// What image `n` is made of, what is referred to before what refers to it. Neighbours share a layer and the snapshot of it.
fn parts(n: u8) -> Vec<(Resource, Vec<Edge>)> {
    let (manifest, config, below, above) = (blob(n), blob(50 + n), blob(100 + n / 2), blob(150 + n));
    let (lower, upper) = (snapshot(format!("low-{}", n / 2)), snapshot(format!("up-{n}")));
    vec![
        (below.clone(), vec![]),
        (above.clone(), vec![]),
        (lower.clone(), vec![]),
        (upper.clone(), vec![Edge::whole(lower)]),
        (config.clone(), vec![Edge::whole(upper)]),
        (
            manifest,
            vec![Edge::whole(config), Edge::leaf(below), Edge::leaf(above)],
        ),
    ]
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Op {
    /// Begins to pull an image, under a lease.
    Pull {
        namespace: usize,
        image: u8,
    },
    /// One step of the oldest pull.
    GoOn,
    /// A program is killed in the middle of the oldest pull: its lease is left.
    Abandon,
    /// The oldest lease that was left expires.
    Expire,
    Untag {
        namespace: usize,
        image: u8,
    },
    Create {
        namespace: usize,
        image: u8,
    },
    Delete {
        namespace: usize,
        image: u8,
    },
    /// A label on a blob that is held makes it refer to another that is held.
    Label {
        namespace: usize,
        from: u8,
        to: u8,
        back: bool,
    },
    /// A name that is no root any more.
    ExpireImage {
        namespace: usize,
        image: u8,
    },
    /// A collection that is stopped after so many steps, or not; others do the next operations between its steps, or not.
    Collect {
        steps: Option<usize>,
        batch: usize,
        beside: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (namespace, image) = (0..NAMESPACES.len(), 0..IMAGES);
    let at = (namespace.clone(), image);
    prop_oneof![
        4 => at.clone().prop_map(|(namespace, image)| Op::Pull { namespace, image }),
        20 => Just(Op::GoOn),
        1 => Just(Op::Abandon),
        2 => Just(Op::Expire),
        3 => at.clone().prop_map(|(namespace, image)| Op::Untag { namespace, image }),
        2 => at.clone().prop_map(|(namespace, image)| Op::Create { namespace, image }),
        2 => at.clone().prop_map(|(namespace, image)| Op::Delete { namespace, image }),
        1 => at.prop_map(|(namespace, image)| Op::ExpireImage { namespace, image }),
        2 => (namespace, 0..IMAGES, 0..IMAGES, any::<bool>())
            .prop_map(|(namespace, from, to, back)| Op::Label { namespace, from, to, back }),
        4 => (proptest::option::of(0_usize..60), 1_usize..8, any::<bool>())
            .prop_map(|(steps, batch, beside)| Op::Collect { steps, batch, beside }),
    ]
}

#[derive(Debug)]
struct Pull {
    lease: Key,
    image: u8,
    left: VecDeque<(Resource, Vec<Edge>)>,
}

/// The stores, and those who use them. The rules of `Collectible` are theirs to keep: hold first, then look, then make.
#[derive(Debug)]
struct World {
    store: Arc<MemoryStore>,
    shelf: Shelf,
    pulls: VecDeque<Pull>,
    abandoned: VecDeque<Key>,
    next: usize,
    /// Held and there when last looked.
    must: BTreeSet<Resource>,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            shelf: Shelf::default(),
            pulls: VecDeque::new(),
            abandoned: VecDeque::new(),
            next: 0,
            must: BTreeSet::new(),
        }
    }

    /// Applies a batch that a collection may refuse; tells whether it did not.
    async fn tries(&self, batch: Batch) -> bool {
        match self.store.apply(batch).await {
            Ok(_) => true,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::AlreadyExists
                ) =>
            {
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn act(&mut self, op: &Op) {
        match *op {
            Op::Pull { namespace, image } => self.pull(NAMESPACES[namespace], image).await,
            Op::GoOn => self.go_on().await,
            Op::Abandon => self.abandoned.extend(self.pulls.pop_front().map(|pull| pull.lease)),
            Op::Expire => {
                if let Some(lease) = self.abandoned.pop_front() {
                    // A run may have removed it before; it can't have, for it had not expired.
                    let past = Some(SystemTime::UNIX_EPOCH);
                    self.store
                        .renew_lease(&lease.namespace, &lease.id, past)
                        .await
                        .expect("an unexpired lease is there");
                }
            }
            Op::Untag { namespace, image } => {
                self.tries(Batch::new().delete(Key::image(NAMESPACES[namespace], format!("image-{image}"))))
                    .await;
            }
            Op::Create { namespace, image } => self.create(NAMESPACES[namespace], image).await,
            Op::Delete { namespace, image } => {
                let id = format!("c-{image}");
                self.shelf
                    .things()
                    .remove(&snapshot(format!("{}/{id}", NAMESPACES[namespace])));
                self.tries(Batch::new().delete(Key::container(NAMESPACES[namespace], id)))
                    .await;
            }
            Op::Label {
                namespace,
                from,
                to,
                back,
            } => self.label(NAMESPACES[namespace], from, to, back).await,
            Op::ExpireImage { namespace, image } => {
                let key = Key::image(NAMESPACES[namespace], format!("image-{image}"));
                if let Some(record) = self.store.get(&key).await.expect("get") {
                    let expired =
                        Labels::from([("containerd.io/gc.expire".to_owned(), "1999-01-01T00:00:00Z".to_owned())]);
                    self.tries(Batch::new().put(key, expired, record.value)).await;
                }
            }
            Op::Collect { .. } => unreachable!("the driver does these"),
        }
    }

    async fn pull(&mut self, namespace: &str, image: u8) {
        self.next += 1;
        let key = Key::lease(namespace, format!("pull-{}", self.next));
        self.store
            .create_lease(namespace, &key.id, None)
            .await
            .expect("a lease");
        let parts = parts(image);
        let resources: Vec<_> = parts.iter().map(|(resource, _)| resource.clone()).collect();
        match self.store.add_to_lease(namespace, &key.id, &resources).await {
            Ok(_) => self.pulls.push_back(Pull {
                lease: key,
                image,
                left: parts.into(),
            }),
            // One of them is going at this moment. A real pull tries again.
            Err(error) if error.kind() == ErrorKind::Conflict => self.abandoned.push_back(key),
            Err(error) => panic!("{error}"),
        }
    }

    async fn go_on(&mut self) {
        let Some(mut pull) = self.pulls.pop_front() else { return };
        if let Some((resource, edges)) = pull.left.pop_front() {
            if !self.shelf.has(&resource) {
                self.shelf.put(resource, edges);
            }
            return self.pulls.push_front(pull);
        }
        let target = Descriptor::new(
            MediaType::ImageManifest,
            7,
            digest(pull.image).parse::<Digest>().expect("a digest"),
        );
        let key = Key::image(&pull.lease.namespace, format!("image-{}", pull.image));
        let batch = Batch::new().put(key, Labels::new(), Value::Image(Box::new(Image { target })));
        self.store
            .apply(batch.delete(pull.lease))
            .await
            .expect("what is held can be named");
    }

    async fn create(&mut self, namespace: &str, image: u8) {
        let name = format!("image-{image}");
        if self.store.image(namespace, &name).await.expect("get").is_none() {
            return;
        }
        let (id, parent) = (format!("c-{image}"), snapshot(format!("up-{image}")));
        let key = format!("{namespace}/{id}");
        let record = Container {
            image: name,
            image_digest: Some(digest(image)),
            snapshotter: "overlay".into(),
            snapshot: key.clone(),
            ..Container::default()
        };
        let labels = Labels::from([(
            "containerd.io/gc.ref.snapshot.overlay/parent".to_owned(),
            format!("up-{image}"),
        )]);
        let batch = Batch::new().create(
            Key::container(namespace, &id),
            labels,
            Value::Container(Box::new(record)),
        );
        // An image that has expired may be on its way out, and then its parts may be gone.
        if self.tries(batch).await && self.shelf.has(&parent) {
            self.shelf.put(snapshot(key), [Edge::whole(parent)]);
        }
    }

    async fn label(&mut self, namespace: &str, from: u8, to: u8, back: bool) {
        let held = self.model().await;
        let node = |number| (namespace.to_owned(), Node::from(blob(number)));
        if held.contains(&node(from)) && held.contains(&node(to)) {
            let kind = if back { "bref" } else { "ref" };
            let labels = Labels::from([(format!("containerd.io/gc.{kind}.content.x"), digest(to))]);
            self.tries(Batch::new().put(Key::content(namespace, digest(from)), labels, Value::Labels))
                .await;
        }
    }

    /// The plain model: everything that is held, by repeating until nothing is new.
    async fn model(&self) -> BTreeSet<(String, Node)> {
        let view = self.store.view().await.expect("a view");
        let records = view.scan(None, usize::MAX).await.expect("records");
        let mut held: BTreeSet<(String, Node)> = BTreeSet::new();
        let mut edges: BTreeMap<(String, Node), BTreeSet<Node>> = BTreeMap::new();
        for record in &records {
            Self::read(record, &mut held, &mut edges);
        }
        let things = self.shelf.things();
        loop {
            let mut more = held.clone();
            for (namespace, node) in &held {
                let named = edges.get(&(namespace.clone(), node.clone())).into_iter().flatten();
                let made_of = node
                    .resource()
                    .and_then(|resource| things.get(resource))
                    .into_iter()
                    .flatten();
                let all = named.chain(made_of.map(|edge| &edge.to));
                more.extend(all.map(|to| (namespace.clone(), to.clone())));
            }
            if more.len() == held.len() {
                return held;
            }
            held = more;
        }
    }

    fn read(
        record: &Record,
        held: &mut BTreeSet<(String, Node)>,
        edges: &mut BTreeMap<(String, Node), BTreeSet<Node>>,
    ) {
        let namespace = record.key.namespace.clone();
        let expired = record.labels.contains_key("containerd.io/gc.expire");
        let (node, targets): (Node, Vec<Node>) = match &record.value {
            Value::Lease(lease) => {
                if lease.expires.is_none() {
                    held.extend(lease.resources.iter().map(|r| (namespace.clone(), r.clone().into())));
                }
                return;
            }
            Value::Image(image) => {
                let node = Node::Image(record.key.id.clone());
                if !expired {
                    held.insert((namespace.clone(), node.clone()));
                }
                (node, vec![Resource::Content(image.target.digest().to_string()).into()])
            }
            Value::Container(container) => {
                let node = Node::Container(record.key.id.clone());
                held.insert((namespace.clone(), node.clone()));
                let digest = container.image_digest.clone().expect("a digest");
                let own = [snapshot(&container.snapshot), Resource::Content(digest)];
                (node, own.map(Node::from).to_vec())
            }
            _ if record.key.kind == Kind::Content => (Resource::Content(record.key.id.clone()).into(), vec![]),
            _ => return,
        };
        let of = edges.entry((namespace.clone(), node.clone())).or_default();
        of.extend(targets);
        for (label, value) in &record.labels {
            if label.starts_with("containerd.io/gc.ref.content") {
                edges
                    .entry((namespace.clone(), node.clone()))
                    .or_default()
                    .insert(Resource::Content(value.clone()).into());
            } else if label.starts_with("containerd.io/gc.ref.snapshot") {
                edges
                    .entry((namespace.clone(), node.clone()))
                    .or_default()
                    .insert(snapshot(value).into());
            } else if label.starts_with("containerd.io/gc.bref.content") {
                let referrer = (namespace.clone(), Node::from(Resource::Content(value.clone())));
                edges.entry(referrer).or_default().insert(node.clone());
            }
        }
    }

    /// What was held and there is still there, if it is still held.
    async fn check(&mut self) {
        let held: BTreeSet<Resource> = self
            .model()
            .await
            .into_iter()
            .filter_map(|(_, node)| node.resource().cloned())
            .collect();
        for resource in self.must.intersection(&held) {
            assert!(self.shelf.has(resource), "{resource} is held, was there, and went");
        }
        self.must = held.into_iter().filter(|resource| self.shelf.has(resource)).collect();
    }

    /// After a whole run with nobody beside it: what is there is held.
    async fn check_clean(&mut self) {
        self.check().await;
        let there: BTreeSet<Resource> = self.shelf.things().keys().cloned().collect();
        assert_eq!(there, self.must, "what nobody holds is still there");
        assert_eq!(
            self.store.list("", Kind::Removal).await.expect("list"),
            [],
            "a fence is left"
        );
        for namespace in NAMESPACES {
            let held = self.model().await;
            for record in self.store.list(namespace, Kind::Content).await.expect("list") {
                let node = (
                    namespace.to_owned(),
                    Node::from(Resource::Content(record.key.id.clone())),
                );
                assert!(held.contains(&node), "{} is left", record.key);
            }
            let leases = self.store.leases(namespace).await.expect("leases");
            assert!(
                leases.iter().all(|lease| lease.value.expires.is_none()),
                "an expired lease is left"
            );
        }
    }
}

/// Lets the others act before each step of a collection.
struct Beside {
    world: futures::lock::Mutex<World>,
    ops: Mutex<VecDeque<Op>>,
    steps: Mutex<Option<usize>>,
    beside: Mutex<bool>,
}

#[async_trait]
impl Between for Beside {
    async fn step(&self) -> bool {
        let take = |ops: &mut VecDeque<Op>| match ops.front() {
            None | Some(Op::Collect { .. }) => None,
            Some(_) => ops.pop_front(),
        };
        let beside = *self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let op = if beside {
            take(&mut self.ops.lock().unwrap_or_else(PoisonError::into_inner))
        } else {
            None
        };
        let mut world = self.world.lock().await;
        if let Some(op) = op {
            world.act(&op).await;
        }
        world.check().await;
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match steps.as_mut() {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

async fn run(ops: Vec<Op>) {
    let world = World::new();
    let (store, shelf) = (world.store.clone(), world.shelf.clone());
    let between = Arc::new(Beside {
        world: futures::lock::Mutex::new(world),
        ops: Mutex::new(ops.into()),
        steps: Mutex::new(None),
        beside: Mutex::new(false),
    });
    let stepped = Arc::new(Stepped {
        store,
        shelf,
        between: between.clone(),
    });
    let collect = async |steps: Option<usize>, batch: usize, beside: bool| {
        *between.steps.lock().unwrap_or_else(PoisonError::into_inner) = steps;
        *between.beside.lock().unwrap_or_else(PoisonError::into_inner) = beside;
        // A new one each time: a program that was started again knows nothing of the one before.
        let collector = Collector::new(stepped.clone()).with(stepped.clone());
        let outcome = collector.collect(&CollectOptions::default().batch(batch)).await;
        assert!(outcome.is_ok() || steps.is_some(), "{outcome:?}");
        let mut world = between.world.lock().await;
        match outcome.is_ok() && !beside {
            true => world.check_clean().await,
            false => world.check().await,
        }
    };
    loop {
        let op = between.ops.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match op {
            None => break,
            Some(Op::Collect { steps, batch, beside }) => collect(steps, batch, beside).await,
            Some(op) => {
                let mut world = between.world.lock().await;
                world.act(&op).await;
                world.check().await;
            }
        }
    }
    collect(None, 3, false).await;
}

#[test]
fn nothing_held_goes_and_nothing_else_stays() {
    let ops: usize = std::env::var("LONGSHORE_MODEL_OPS")
        .ok()
        .and_then(|ops| ops.parse().ok())
        .unwrap_or(12_000);
    let config = ProptestConfig {
        cases: u32::try_from(ops / OPS).unwrap_or(u32::MAX).max(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ops in proptest::collection::vec(op(), OPS))| {
        futures::executor::block_on(run(ops));
    });
}
