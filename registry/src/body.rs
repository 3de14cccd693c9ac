//! Bodies of answers: blobs as streams, counted, and spoiled when a fault asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};

use crate::answer::{Answer, Body, BodyError};
use crate::faults::Fault;

/// Long enough for what was handed to the connection to be on its way.
const FLUSH: Duration = Duration::from_millis(20);

pub(crate) fn streamed<E>(pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Body
where
    E: Into<BodyError>,
{
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data).map_err(Into::into))).boxed_unsync()
}

/// The same body as pieces.
pub(crate) fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    BodyStream::new(body).filter_map(async |frame| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(error)),
    })
}

/// Counts the bytes that leave.
pub(crate) fn counted(answer: Answer, counter: Arc<AtomicU64>) -> Answer {
    answer.map(|body| {
        body.map_frame(move |frame| {
            counter.fetch_add(frame.data_ref().map_or(0, |data| data.len() as u64), Ordering::Relaxed);
            frame
        })
        .boxed_unsync()
    })
}

/// Does to the body what the fault asks for.
pub(crate) fn spoil(answer: Answer, fault: &Fault) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let told = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let length = http_body::Body::size_hint(&body).exact().or(told);
    let body = match *fault {
        Fault::CutAfter(offset) => {
            let end = async {
                tokio::time::sleep(FLUSH).await;
                Err::<Bytes, BodyError>("cut on purpose".into())
            };
            streamed(up_to(body, offset).chain(stream::once(end)))
        }
        Fault::StallAfter(offset) => streamed(up_to(body, offset).chain(stream::pending())),
        Fault::CorruptAt(offset) => streamed(corrupt(body, offset)),
        Fault::ClaimMore(more) => {
            set_length(&mut parts.headers, length.map(|length| length + more));
            streamed(pieces(body))
        }
        Fault::SendLess(less) => {
            let length = length.unwrap_or(0).saturating_sub(less);
            set_length(&mut parts.headers, Some(length));
            streamed(up_to(body, length))
        }
        _ => body,
    };
    if !parts.headers.contains_key(CONTENT_LENGTH) {
        set_length(&mut parts.headers, length);
    }
    Response::from_parts(parts, body)
}

fn set_length(headers: &mut http::HeaderMap, length: Option<u64>) {
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn up_to(body: Body, limit: u64) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    pieces(body).scan(limit, |left, piece| {
        let piece = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        let more = piece.as_ref().is_ok_and(|piece| !piece.is_empty()) || piece.is_err();
        futures::future::ready(more.then_some(piece))
    })
}

fn corrupt(body: Body, at: u64) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    pieces(body).scan(0u64, move |offset, piece| {
        let piece = piece.map(|piece| {
            let here = at.checked_sub(*offset).and_then(|here| usize::try_from(here).ok());
            *offset += piece.len() as u64;
            match here.filter(|&here| here < piece.len()) {
                Some(here) => {
                    let mut changed = BytesMut::from(&piece[..]);
                    changed[here] ^= 0x20;
                    changed.freeze()
                }
                None => piece,
            }
        });
        futures::future::ready(Some(piece))
    })
}
