//! The port's suite, on this machine's executor and on one that is behind a trait object in an `Arc`.

mod support;

use longshore_runtime::conformance::{Fixture, all};
use longshore_runtime::{ContainerId, CreateRequest, Io};
use support::{Place, place, spec};
use tokio::sync::Mutex;

/// The suite's containers have the same names each time, and so the same cgroups: one run at a time.
static TURN: Mutex<()> = Mutex::const_new(());

impl Fixture for Place {
    fn request(&self, id: &ContainerId, line: &str, io: Io) -> CreateRequest {
        Self::request(self, id, &spec(&["/bin/sh", "-c", line]), io)
    }
}

#[tokio::test]
async fn this_machines_executor_keeps_the_contract_on_one_thread() {
    let _turn = TURN.lock().await;
    let Some(place) = place() else { return };
    all(&place.executor, &place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machines_executor_keeps_the_contract_on_many() {
    let _turn = TURN.lock().await;
    let Some(place) = place() else { return };
    all(&place.executor, &place).await;
}
