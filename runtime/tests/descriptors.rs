//! What a running container costs the program in descriptors. The only test of its file, because it counts those of the whole process.

mod support;

use std::fs;

use longshore_runtime::{DeleteMode, Executor, Io, Lifetime, LinuxExecutor, LogFile, ProcessId};
use support::{Place, new_id, place, spec};

/// How many containers are counted.
const MANY: usize = 8;
/// The most that each may hold: the pidfds of its init and of its monitor, and what tells of its want of memory.
const MOST: usize = 3;

fn open_now() -> usize {
    fs::read_dir("/proc/self/fd").expect("our own").count()
}

async fn running(place: &Place) -> longshore_runtime::ContainerId {
    let id = new_id();
    let log = LogFile::new(place.dir.path().join(format!("{id}.log")));
    let request = place.request(&id, &spec(&["sleep", "1000"]), Io::log(log));
    let created = place.executor.create(request.lifetime(Lifetime::Detached)).await;
    created.expect("created");
    place.executor.start(&id).await.expect("started");
    id
}

#[tokio::test]
async fn a_running_container_holds_a_handful_of_descriptors() {
    let Some(place) = place() else { return };
    // What the first one makes grow is there once.
    let mut ids = vec![running(&place).await];
    let mut watches = vec![place.executor.out_of_memory(&ids[0]).await.expect("watched")];
    let before = open_now();
    for _ in 0..MANY {
        let id = running(&place).await;
        watches.push(place.executor.out_of_memory(&id).await.expect("watched"));
        place.executor.stats(&id).await.expect("figures");
        ids.push(id);
    }
    let each = (open_now() - before).div_ceil(MANY);
    assert!(each <= MOST, "{each} for each");

    // Nor for one that another program made, or this one before it was started anew.
    let before = open_now();
    let another = LinuxExecutor::open(place.dir.path().join("state")).expect("the state directory opens");
    let own = open_now() - before;
    assert_eq!(another.list().await.expect("listed").len(), ids.len());
    let each = (open_now() - before - own).div_ceil(ids.len());
    assert!(each <= MOST, "{each} for each that was found");
    drop(another);

    for id in &ids {
        place.executor.delete(id, DeleteMode::Force).await.expect("deleted");
        let gone = place.executor.wait(id, &ProcessId::Init).await;
        assert!(gone.is_err(), "{gone:?}");
    }
    drop(watches);
}
