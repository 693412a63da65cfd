//! Queries of the kernel for requests: each runs in a thread of its own, and its answer is written while it is read.
//!
//! What a reader has not taken yet is bounded: the thread waits for it. It ends with the connection, and its place is free again.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use super::hints::WordedJson;
use super::limits::{PIECE, PIECES, Times};
use crate::observe::{ObserveError, QueryClient};
use tcpgw_kernel::Kernel;

/// Opens a kernel for one query, in the thread of the query.
pub type OpenKernel = Arc<dyn Fn() -> Result<Box<dyn Kernel>, ObserveError> + Send + Sync>;

/// Access to the kernel for requests, with a limited number of queries at once.
#[derive(Clone)]
pub(super) struct KernelQueries {
    open: OpenKernel,
    places: Arc<Semaphore>,
    most: usize,
    times: Times,
}

type Piece = Result<Bytes, ApiError>;

impl KernelQueries {
    /// Creates an access to the kernel for `most` queries at once.
    pub(super) fn new(open: OpenKernel, most: usize, times: Times) -> Self {
        Self {
            open,
            places: Arc::new(Semaphore::new(most)),
            most,
            times,
        }
    }

    /// Returns an answer with the JSON that `work` writes. An error before the first piece was sent is the answer; a
    /// later one cuts the answer short.
    pub(super) async fn stream<W>(&self, patience: Duration, work: W) -> Result<Response, ApiError>
    where
        W: FnOnce(&mut dyn Kernel, &mut dyn Write, &QueryClient) -> Result<(), ObserveError> + Send + 'static,
    {
        let place = timeout(self.times.place, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(ApiError::busy(&format!("{} others are reading the kernel", self.most)));
        };
        let (pieces, mut taken) = mpsc::channel::<Piece>(PIECES);
        let open = Arc::clone(&self.open);
        // The receiver goes with the connection.
        let wanted = pieces.clone();
        let client = QueryClient::who_may_go(move || wanted.is_closed());
        let mut out = WordedJson::new(BufWriter::with_capacity(PIECE, Pipe(pieces.clone())));
        tokio::task::spawn_blocking(move || {
            let done = open().and_then(|mut kernel| {
                work(&mut *kernel, &mut out, &client)?;
                Ok(out.flush()?)
            });
            if let Err(error) = done {
                // The buffered rest of the answer is not sent.
                let _ = out.into_inner().into_parts();
                let _ = pieces.blocking_send(Err(error.into()));
            }
            drop(place);
        });
        let first = match timeout(self.times.kernel + patience, taken.recv()).await {
            Ok(Some(first)) => first?,
            Ok(None) => return Err(ApiError::failed("the thread that reads the kernel has died")),
            Err(_) => return Err(ApiError::busy("the kernel has shown nothing for too long")),
        };
        let body = tokio_stream::once(Ok(first)).chain(ReceiverStream::new(taken));
        Ok((
            [(header::CONTENT_TYPE, super::media_type::JSON)],
            Body::from_stream(body),
        )
            .into_response())
    }
}

struct Pipe(mpsc::Sender<Piece>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::KERNEL_QUERIES;
    use tcpgw_kernel::fake::Fake;

    #[test]
    fn a_place_is_free_again_when_whoever_looked_has_gone() {
        let times = Times {
            place: Duration::from_secs(10),
            ..Times::default()
        };
        let queries = KernelQueries::new(Arc::new(|| Ok(Box::new(Fake::default()))), KERNEL_QUERIES, times);
        // The clock of the fake kernel does not wait.
        let waits = |kernel: &mut dyn Kernel, _: &mut dyn Write, client: &QueryClient| {
            let begin = std::time::Instant::now();
            while begin.elapsed() < Duration::from_secs(60) {
                client.pause(kernel, Duration::from_millis(50))?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answer = runtime.expect("a runtime").block_on(async {
            for _ in 0..KERNEL_QUERIES {
                let gone = timeout(Duration::from_millis(20), queries.stream(Duration::ZERO, waits)).await;
                assert!(gone.is_err(), "it runs for a minute");
            }
            let writes = |_: &mut dyn Kernel, out: &mut dyn Write, _: &QueryClient| Ok(out.write_all(b"{}")?);
            queries.stream(Duration::ZERO, writes).await.map(drop)
        });
        answer.expect("no query is left");
    }
}
