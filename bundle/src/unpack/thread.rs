use std::io;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runs what blocks for long on a thread of its own: tokio's pool of blocking threads is bounded, and the writer that
/// this work may wait for uses it too.
///
/// The thread is inside the runtime, for implementations of the ports that need it. A panic of the work goes on in
/// the caller.
pub(super) async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (send, receive) = oneshot::channel();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _inside = runtime.enter();
        // Nobody receives when the runtime is gone, and then nobody needs to know.
        let _ = send.send(work());
    })?;
    match receive.await {
        Ok(value) => Ok(value),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread that ends without a panic has sent its value"),
        },
    }
}
