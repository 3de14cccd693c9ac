//! Lives of containers inside this program.

use std::path::Path;

use longshore::oci_spec::runtime::Spec;
use longshore::runtime::{CreateRequest, DeleteMode, Executor, Io, LinuxExecutor, ProcessId};

use crate::bundle::{self, Bundle};
use crate::floor;
use crate::pairs::Table;
use crate::peers::Peers;

/// An executor in this program, and what it runs.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) executor: LinuxExecutor,
    spec: Spec,
    bundle: std::path::PathBuf,
}

impl Host {
    pub(crate) fn new(short: &Path, state: &str) -> Self {
        let place = short.parent().expect("it has one");
        Self {
            executor: LinuxExecutor::open(place.join(state)).expect("a state directory"),
            spec: bundle::spec(&["/bin/true"], &place.join("rootfs")),
            bundle: short.to_owned(),
        }
    }

    /// Create, start, wait, delete.
    pub(crate) async fn one_life(&self) {
        let id = bundle::new_id();
        let request = CreateRequest::new(id.clone(), &self.bundle, self.spec.clone(), Io::null());
        self.executor.create(request).await.expect("created");
        self.executor.start(&id).await.expect("started");
        let status = self.executor.wait(&id, &ProcessId::Init).await.expect("ended");
        assert_eq!(status.code, 0, "true is true");
        let deleted = self.executor.delete(&id, DeleteMode::Stopped).await;
        deleted.expect("deleted");
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

pub(crate) fn compare(table: &mut Table, bundle: &Bundle, peers: &Peers<'_>) {
    let host = Host::new(&bundle.short(), "alive");
    let runtime = runtime();
    let life = || runtime.block_on(host.one_life());
    if let Some(crun) = &peers.crun {
        table.time("in process, a whole life / crun run", "<= 0.4", life, || crun.run());
    }
    let floor = floor::Floor::new(&bundle.rootfs());
    table.time("in process, a whole life / floor", "<= 1.3", life, || floor.life());
}
