//! One message in, one message out: a unary call of gRPC as it stands on the wire.
//!
//! What a store is asked for is almost always that. tonic serves it as streams that happen to have one message, with a dozen allocations
//! more for each call.

use std::future::poll_fn;
use std::pin::pin;

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body as HttpBody, Bytes};
use prost::Message;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::error;
use super::pieces::{Answer, HEADER_BYTES, InPieces};

/// Has `handle` answer the one message of `request`.
pub(super) async fn call<B, Q, A, F>(
    request: http::Request<B>,
    handle: impl FnOnce(Request<Q>) -> F,
) -> http::Response<Body>
where
    B: HttpBody<Data = Bytes, Error = Status>,
    Q: Message + Default,
    A: InPieces,
    F: Future<Output = Result<Answer<A>, Status>>,
{
    let body = async { handle(receive(request).await?).await?.into_body().await };
    respond(body.await)
}

/// Has `handle` answer the one message of `request` with many: it makes the body that tells them.
pub(super) async fn stream<B, Q, F>(
    request: http::Request<B>,
    handle: impl FnOnce(Request<Q>) -> F,
) -> http::Response<Body>
where
    B: HttpBody<Data = Bytes, Error = Status>,
    Q: Message + Default,
    F: Future<Output = Result<Body, Status>>,
{
    let body = async { handle(receive(request).await?).await };
    respond(body.await)
}

/// The answer whose messages and status are in `body`, or the status alone.
pub(super) fn respond(body: Result<Body, Status>) -> http::Response<Body> {
    match body {
        Ok(body) => {
            let mut response = http::Response::new(body);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http(),
    }
}

/// The request, once all of it is here.
async fn receive<B, Q>(request: http::Request<B>) -> Result<Request<Q>, Status>
where
    B: HttpBody<Data = Bytes, Error = Status>,
    Q: Message + Default,
{
    let (parts, body) = request.into_parts();
    if let Some(encoding) = compression(&parts.headers) {
        return Err(error::compressed(encoding));
    }
    let message = Q::decode(message(body).await?).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, message))
}

/// How the messages of a request are compressed, if they are.
pub(super) fn compression(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get("grpc-encoding").filter(|encoding| *encoding != "identity")
}

/// The bytes of the one message of `body`, in a buffer of their own: the connection's is not kept for them.
async fn message(body: impl HttpBody<Data = Bytes, Error = Status>) -> Result<Bytes, Status> {
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(mut data) = frame?.into_data() {
            while let left = missing(&bytes).min(data.len())
                && left > 0
            {
                bytes.extend_from_slice(&data.split_to(left));
            }
            if !data.is_empty() {
                return Err(error::more_than_one_message());
            }
        }
    }
    if missing(&bytes) > 0 {
        return Err(error::no_message());
    }
    if bytes[0] != 0 {
        return Err(error::compression_flag());
    }
    Ok(bytes.freeze().slice(HEADER_BYTES..))
}

/// How many bytes are known to be missing of a message with its header.
fn missing(bytes: &[u8]) -> usize {
    match bytes.split_first_chunk::<HEADER_BYTES>() {
        None => HEADER_BYTES - bytes.len(),
        Some(([_, length @ ..], rest)) => u32::from_be_bytes(*length) as usize - rest.len(),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::body::Frame;
    use quorate_api::etcdserverpb as pb;
    use tonic::Code;

    use super::*;
    use crate::rpc::arrival::Budget;
    use crate::rpc::pieces::encode;

    /// What is received of frames of `size` bytes each.
    async fn received(bytes: &[u8], size: usize, encoding: Option<&str>) -> Result<pb::PutRequest, Status> {
        let frames: Vec<_> =
            bytes.chunks(size).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
        let mut request = http::Request::new(StreamBody::new(stream::iter(frames)));
        if let Some(encoding) = encoding {
            request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        }
        receive(request).await.map(Request::into_inner)
    }

    fn put() -> pb::PutRequest {
        pb::PutRequest { key: "key".into(), value: "value".into(), ..pb::PutRequest::default() }
    }

    #[tokio::test]
    async fn a_message_is_received_however_it_is_cut_and_nothing_may_follow_it() {
        let bytes = encode(&put());
        let two = [&bytes[..], &encode(&pb::PutRequest::default())].concat();
        for size in 1..=two.len() {
            let refused = received(&two, size, None).await.unwrap_err();
            assert_eq!(refused.message(), "a request of one message has more than one");
        }
        for size in 1..=bytes.len() {
            assert_eq!(received(&bytes, size, Some("identity")).await.unwrap(), put());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let bytes = encode(&put());
        let refused = received(&bytes, 99, Some("gzip")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("\"gzip\""), "{refused}");
        let mut compressed = bytes.to_vec();
        compressed[0] = 1;
        let text = "protocol error: received message with compressed-flag but no grpc-encoding was specified";
        assert_eq!(received(&compressed, 99, None).await.unwrap_err().message(), text);
        for end in [0, 4, 5, bytes.len() - 1] {
            assert_eq!(received(&bytes[..end], 99, None).await.unwrap_err().code(), Code::Internal);
        }
        let nonsense = [&[0, 0, 0, 0, 2][..], &[0x0a, 0x09]].concat();
        assert_eq!(received(&nonsense, 99, None).await.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_a_status() {
        let request = http::Request::new(Full::new(encode(&put())).map_err(|never| match never {}));
        let answer = pb::PutResponse { prev_kv: None, header: Some(pb::ResponseHeader::default()) };
        let told = answer.clone();
        let response = call(request, |request: Request<pb::PutRequest>| async move {
            assert_eq!(request.into_inner(), put());
            Ok(Answer::new(told, Budget::new(0).share()))
        });
        let response = response.await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), encode(&answer));
    }
}
