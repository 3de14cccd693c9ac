//! Blocking work, off the executor's threads.

/// Runs `work` where it may block: on tokio's blocking threads, or right here under an executor that has none.
///
/// When the returned future is dropped the work still runs to its end, so it must leave whole state by itself.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return work();
    };
    match runtime.spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will poll this again.
            Err(_) => std::future::pending().await,
        },
    }
}
