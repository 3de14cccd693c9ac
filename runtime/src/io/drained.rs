use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt};

/// Held by what carries a container's output; when the last clone is dropped, all output has arrived.
#[derive(Clone, Debug)]
pub struct OutputGuard {
    _sender: std::sync::Arc<oneshot::Sender<()>>,
}

/// Tells that all output has arrived: the other side of an [`OutputGuard`].
#[derive(Debug)]
pub struct Drained(oneshot::Receiver<()>);

impl Drained {
    /// A guard, and what is told when it is gone.
    pub fn pair() -> (OutputGuard, Self) {
        let (sender, receiver) = oneshot::channel();
        (OutputGuard { _sender: sender.into() }, Self(receiver))
    }

    /// Ends when the guard and its clones are dropped.
    pub(crate) fn wait(self) -> BoxFuture<'static, ()> {
        self.0.map(drop).boxed()
    }
}
