//! The messages of a request that goes on: one after the other, for as long as its client likes.
//!
//! What has arrived of a message counts until it is taken. Between messages a client may be silent; one that it has begun has to arrive in time.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use hyper::body::{Body as HttpBody, Bytes};
use prost::Message;
use tokio::time::Sleep;
use tonic::Status;
use tonic::codegen::StdError;

use super::arrival::{Budget, MESSAGE_TIMEOUT, Share};
use super::error;
use super::pieces::HEADER_BYTES;
use super::services::MAX_MESSAGE_BYTES;

/// The messages of `body`.
pub(super) struct Messages<B, Q> {
    body: B,
    arriving: Budget,
    /// What has arrived, and was not taken.
    bytes: BytesMut,
    share: Option<Share>,
    late: Option<Pin<Box<Sleep>>>,
    of: PhantomData<fn() -> Q>,
}

impl<B, Q> Messages<B, Q>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
    Q: Message + Default,
{
    /// Those of `body`. What has arrived of them counts in `arriving`.
    pub(super) fn new(body: B, arriving: Budget) -> Self {
        let (bytes, share, late) = Default::default();
        Self { body, arriving, bytes, share, late, of: PhantomData }
    }

    /// The next message. None when the client sends no more.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Q, Status>>> {
        loop {
            if let Some(message) = self.whole() {
                return Poll::Ready(Some(message));
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && let Err(refused) = self.take(&data)
                    {
                        return Poll::Ready(Some(Err(refused)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                Poll::Ready(None) if self.bytes.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) => return Poll::Ready(Some(Err(error::no_message()))),
                Poll::Pending if self.bytes.is_empty() => {
                    self.late = None;
                    return Poll::Pending;
                }
                Poll::Pending => {
                    let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT)));
                    ready!(late.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(error::message_too_slow(MESSAGE_TIMEOUT))));
                }
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        if !self.share.get_or_insert_with(|| self.arriving.share()).grow(data.len()) {
            return Err(error::too_many_requests());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// A message was taken: what is left of the share is for what has arrived of others.
    fn give_back(&mut self) {
        self.share = None;
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        } else {
            let mut share = self.arriving.share();
            // It was granted a moment ago.
            share.grow(self.bytes.len());
            self.share = Some(share);
        }
    }

    /// The first message, if all of it is there.
    fn whole(&mut self) -> Option<Result<Q, Status>> {
        let ([flag, length @ ..], rest) = self.bytes.split_first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_be_bytes(*length) as usize;
        if *flag != 0 {
            return Some(Err(error::compression_flag()));
        }
        if length > MAX_MESSAGE_BYTES {
            return Some(Err(error::message_too_large(length, MAX_MESSAGE_BYTES)));
        }
        if rest.len() < length {
            return None;
        }
        self.bytes.advance(HEADER_BYTES);
        let message = Q::decode(&self.bytes[..length]).map_err(|error| Status::internal(error.to_string()));
        self.bytes.advance(length);
        self.late = None;
        self.give_back();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use quorate_api::etcdserverpb as pb;
    use tonic::Code;

    use super::*;
    use crate::rpc::pieces::encode;

    fn puts() -> Vec<pb::PutRequest> {
        let put = |n: usize| pb::PutRequest { value: vec![n as u8; n].into(), ..pb::PutRequest::default() };
        (0..9).map(|n| put(n * n)).collect()
    }

    /// What is received of frames of `size` bytes each, and what stays counted.
    async fn received(bytes: &[u8], size: usize) -> (Vec<Result<pb::PutRequest, Code>>, usize) {
        let frames: Vec<Result<_, Status>> =
            bytes.chunks(size).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
        let arriving = Budget::new(1 << 20);
        let mut messages = Messages::new(StreamBody::new(stream::iter(frames)), arriving.clone());
        let mut found = Vec::new();
        while let Some(message) = poll_fn(|cx| messages.poll_next(cx)).await {
            let failed = message.is_err();
            found.push(message.map_err(|status| status.code()));
            if failed {
                break;
            }
        }
        (found, arriving.used())
    }

    #[tokio::test]
    async fn messages_come_one_after_the_other_however_they_are_cut() {
        let bytes: Vec<u8> = puts().iter().flat_map(encode).collect();
        for size in 1..=bytes.len() {
            let (found, held) = received(&bytes, size).await;
            assert_eq!(found, puts().into_iter().map(Ok).collect::<Vec<_>>());
            assert_eq!(held, 0);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_them() {
        let bytes = encode(&puts()[3]);
        let cases = [
            (bytes[..bytes.len() - 1].to_vec(), Code::Internal),
            ([&[1][..], &bytes[1..]].concat(), Code::Internal),
            (vec![0, 1, 0, 0, 0], Code::ResourceExhausted),
            (vec![0, 0, 0, 0, 2, 0x0a, 0x09], Code::Internal),
        ];
        for (bytes, code) in cases {
            assert_eq!(received(&bytes, 7).await.0, [Err(code)]);
        }
    }
}
