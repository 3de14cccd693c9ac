//! Accepts connections, so many at a time.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::service;
use crate::state::State;

/// A connection on which no request comes for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Serves until it is dropped, and with it all connections.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, connections: usize) {
    let room = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                open.spawn(async move {
                    connection(stream, state).await;
                    drop(place);
                });
            }
            Err(error) => {
                // No descriptors left, most likely: those that are open will give some back.
                tracing::warn!(%error, "the registry could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while open.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| service::serve(state.clone(), request)),
        );
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the registry ended early");
    }
}
