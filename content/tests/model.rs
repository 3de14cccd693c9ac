//! Random histories of one ingest against a plain model of what must come of them, on both stores.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use longshore_content::{
    ContentStore, ErrorKind, Expected, Ingest, IngestRequest, LocalStore, MemoryStore, Result, sha256,
};
use proptest::prelude::*;

const SIZE: usize = 300_000;

/// What happens to the ingest next.
#[derive(Clone, Debug)]
enum Step {
    /// So many of the right bytes come.
    Write(usize),
    /// A wrong byte comes.
    Spoil,
    /// So many bytes come, but nobody waits for the write to end.
    DroppedWrite(usize, usize),
    /// The writer is dropped, and the ingest resumed.
    Resume,
    /// Everything starts over.
    Restart,
    /// The writer is dropped, and what it left is thrown away.
    Abort,
    /// An early commit, with too few bytes.
    Commit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..SIZE / 4).prop_map(Step::Write),
        1 => Just(Step::Spoil),
        2 => (0..SIZE / 4, 0..3usize).prop_map(|(length, polls)| Step::DroppedWrite(length, polls)),
        2 => Just(Step::Resume),
        1 => Just(Step::Restart),
        1 => Just(Step::Abort),
        1 => Just(Step::Commit),
    ];
    proptest::collection::vec(step, 0..12)
}

struct History {
    store: Arc<dyn ContentStore>,
    data: Bytes,
    ingest: Box<dyn Ingest>,
    /// The model: how many bytes there are, and whether they are the right ones.
    offset: usize,
    spoilt: bool,
}

async fn begin(store: &Arc<dyn ContentStore>, data: &Bytes) -> Result<Box<dyn Ingest>> {
    let expected = Expected {
        digest: Some(sha256(data)),
        size: Some(SIZE as u64),
    };
    let reference = "a".into();
    store.ingest(IngestRequest { reference, expected }).await
}

async fn poll_and_drop(mut future: BoxFuture<'_, Result<()>>, polls: usize) {
    for _ in 0..polls {
        if futures::poll!(&mut future).is_ready() {
            return;
        }
    }
}

impl History {
    async fn new(store: Arc<dyn ContentStore>) -> Result<Self> {
        let data: Bytes = (0..SIZE).map(|n| (n % 251) as u8).collect();
        let ingest = begin(&store, &data).await?;
        Ok(Self {
            store,
            data,
            ingest,
            offset: 0,
            spoilt: false,
        })
    }

    fn next(&self, length: usize) -> Bytes {
        self.data.slice(self.offset..SIZE.min(self.offset + length))
    }

    async fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Write(length) => {
                let bytes = self.next(length);
                self.offset += bytes.len();
                self.ingest.write(bytes).await?;
            }
            Step::Spoil if self.offset < SIZE => {
                let wrong = !self.data[self.offset];
                self.ingest.write(Bytes::copy_from_slice(&[wrong])).await?;
                self.offset += 1;
                self.spoilt = true;
            }
            Step::Spoil => {
                let refused = self.ingest.write(Bytes::from_static(b"x")).await;
                assert_eq!(refused.expect_err("one too many").kind(), ErrorKind::Verification);
            }
            Step::DroppedWrite(length, polls) => {
                let bytes = self.next(length);
                let most = self.offset + bytes.len();
                poll_and_drop(self.ingest.write(bytes), polls).await;
                let now = self.ingest.status().offset as usize;
                assert!((self.offset..=most).contains(&now));
                self.offset = now;
            }
            Step::Resume => self.renew(|_| async { Ok(()) }).await?,
            Step::Restart => {
                self.ingest.restart().await?;
                (self.offset, self.spoilt) = (0, false);
            }
            Step::Abort => {
                self.renew(|store| async move { store.abort("a").await }).await?;
                (self.offset, self.spoilt) = (0, false);
            }
            Step::Commit if self.offset == SIZE && !self.spoilt => {}
            Step::Commit => {
                let ingest = self.detach().await?;
                let refused = ingest.commit(Expected::default()).await;
                assert_eq!(
                    refused.expect_err("not the promised bytes").kind(),
                    ErrorKind::Verification
                );
                self.ingest = begin(&self.store, &self.data).await?;
                self.store.abort("placeholder").await?;
                (self.offset, self.spoilt) = (0, false);
            }
        }
        assert_eq!(self.ingest.status().offset as usize, self.offset);
        Ok(())
    }

    /// Puts another ingest in the place of this one.
    async fn detach(&mut self) -> Result<Box<dyn Ingest>> {
        let placeholder = IngestRequest {
            reference: "placeholder".into(),
            expected: Expected::default(),
        };
        let placeholder = self.store.ingest(placeholder).await?;
        let detached = std::mem::replace(&mut self.ingest, placeholder);
        Ok(detached)
    }

    async fn renew<F: Future<Output = Result<()>>>(
        &mut self,
        between: impl FnOnce(Arc<dyn ContentStore>) -> F,
    ) -> Result<()> {
        drop(self.detach().await?);
        between(self.store.clone()).await?;
        self.ingest = begin(&self.store, &self.data).await?;
        self.store.abort("placeholder").await
    }

    async fn end(mut self) -> Result<()> {
        if self.spoilt {
            self.take(Step::Restart).await?;
        }
        let rest = self.next(SIZE);
        self.ingest.write(rest).await?;
        self.ingest.commit(Expected::default()).await?;
        longshore_content::ContentStoreExt::verify(self.store.as_ref(), &sha256(&self.data)).await?;
        assert!(self.store.ingests().await?.is_empty());
        Ok(())
    }
}

async fn live(store: Arc<dyn ContentStore>, steps: Vec<Step>) -> Result<()> {
    let mut history = History::new(store).await?;
    for step in steps {
        history.take(step).await?;
    }
    history.end().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_memory(steps in steps()) {
        futures::executor::block_on(live(Arc::new(MemoryStore::new()), steps)).expect("a whole history");
    }

    #[test]
    fn on_disk(steps in steps()) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = LocalStore::open(directory.path()).await?;
            live(Arc::new(store.clone()), steps).await?;
            store.settle().await;
            Ok::<_, longshore_content::Error>(())
        }).expect("a whole history");
    }
}
