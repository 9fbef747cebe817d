//! Requests on their way in: what they may weigh, and how long they may take.
//!
//! Bytes count from the moment that they arrive, those of a message that is not complete among them: what comes within one turn of the
//! runtime must not pass a check that counts later. What is only announced does not count: else a few bytes would take the room of
//! everybody else. Once a message is whole and decoded the gateway counts it; how many requests there are the port's table counts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::error;
use super::services::MAX_MESSAGE_BYTES;

/// How long a message may take to arrive: for 2 MiB, some 70 kB a second.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A compression flag, and the length.
const HEADER_BYTES: usize = 5;

/// Bytes of one kind that are under way at one client runtime, or something else that there must not be too much of. Cheap to clone.
///
/// A connection may hold no more of it than it leaves to the others: one alone half, of two each a third. So however many hold all that
/// they can get, and give nothing back, there is some left for one more.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
    /// What one connection holds of it; none where connections are not told apart.
    connection: Option<Arc<AtomicUsize>>,
    /// How often there was not enough.
    refused: Arc<AtomicU64>,
}

/// A part of a [`Budget`], given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Budget { used: Arc::default(), most, connection: None, refused: Arc::default() }
    }

    /// The same, as one more connection has it.
    pub(super) fn of_connection(&self) -> Self {
        Budget { connection: Some(Arc::default()), ..self.clone() }
    }

    /// Counts how often there was not enough.
    pub(super) fn refused(&self) -> &Arc<AtomicU64> {
        &self.refused
    }

    /// Takes `bytes` for one who holds `own` already. False if there are not so many: what one holds while there is no other is never too
    /// much.
    fn take(&self, bytes: usize, own: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let held = self.connection.as_ref().map_or(0, |held| held.fetch_add(bytes, Ordering::Relaxed));
        let takes = before <= own || before + held + bytes <= self.most;
        if !takes {
            self.give_back(bytes);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(held) = &self.connection {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// What is held of it.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty share.
    pub(super) fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// Takes `bytes` more. False when others have taken all that there is, or the connection all that it may have; one request by itself
    /// is never too large.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let takes = self.budget.take(bytes, self.bytes);
        self.bytes += if takes { bytes } else { 0 };
        takes
    }

    /// Makes it `bytes` in all, if it is smaller: an error when there is no more, be it that this one alone would be too large.
    pub(super) fn reach(&mut self, bytes: usize) -> Result<(), Status> {
        let most = self.budget.most;
        if bytes > most {
            return Err(error::answer_too_heavy(most));
        }
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && !self.grow(more) { Err(error::too_many_requests()) } else { Ok(()) }
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The body of a request, as it arrives.
pub(super) struct Arrival<B> {
    body: B,
    share: Share,
    lengths: Lengths,
    /// Set when the message did not come together with its headers.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Arrival<B> {
    pub(super) fn new(body: B, share: Share) -> Self {
        Arrival { body, share, lengths: Lengths::default(), late: None }
    }
}

impl<B> Body for Arrival<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            // Every request that is served has one message, also those whose answer is a stream.
            let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT)));
            ready!(late.as_mut().poll(cx));
            return Poll::Ready(Some(Err(error::message_too_slow(MESSAGE_TIMEOUT))));
        };
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        if let Some(data) = frame.data_ref() {
            this.lengths.read(data)?;
            if !this.share.grow(data.len()) {
                return Poll::Ready(Some(Err(error::too_many_requests())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the lengths of messages as they pass, so that one that is too large is refused as etcd refuses it.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    header: [u8; HEADER_BYTES],
    /// Of the header of the next message.
    read: usize,
    /// Of the message that is passing.
    left: usize,
}

impl Lengths {
    pub(super) fn read(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let take = if self.left > 0 { self.left } else { HEADER_BYTES - self.read };
            let (now, rest) = data.split_at(take.min(data.len()));
            data = rest;
            if self.left > 0 {
                self.left -= now.len();
                continue;
            }
            self.header[self.read..self.read + now.len()].copy_from_slice(now);
            self.read += now.len();
            if self.read == HEADER_BYTES {
                let [_, length @ ..] = self.header;
                self.left = u32::from_be_bytes(length) as usize;
                self.read = 0;
                if self.left > MAX_MESSAGE_BYTES {
                    return Err(error::message_too_large(self.left, MAX_MESSAGE_BYTES));
                }
            }
        }
        Ok(())
    }
}

/// The time that the client gives the request, if it gives one.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_refused_when_others_have_taken_all() {
        let budget = Budget::new(100);
        let mut first = budget.share();
        assert!(first.grow(60) && first.grow(60), "one by itself is never too large");
        let mut second = budget.share();
        assert!(!second.grow(1));
        drop(first);
        assert!(second.grow(100));
        assert!(!budget.share().grow(1));
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    /// Clients that read none of their answers hold what they get for as long as they are let.
    #[test]
    fn connections_that_hold_all_they_can_get_leave_some_to_one_more() {
        let budget = Budget::new(1000);
        let fill = |connection: &Budget| {
            let shares = std::iter::repeat_with(|| {
                let mut share = connection.share();
                share.grow(10).then_some(share)
            });
            shares.take_while(Option::is_some).flatten().collect::<Vec<_>>()
        };
        let first = fill(&budget.of_connection());
        assert_eq!(first.len(), 50, "half of it");
        let others: Vec<_> = (0..4).map(|_| fill(&budget.of_connection())).collect();
        assert!(others.iter().all(|held| !held.is_empty()));
        let mut last = budget.of_connection().share();
        assert!(last.grow(10));
        assert_eq!(budget.refused().load(Ordering::Relaxed), 5);
        drop((first, others, last));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        // While there is no other, one request takes what it needs.
        assert!(budget.of_connection().share().grow(900));
    }

    /// Has nothing to give, and does not end.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_is_given_up() {
        let mut body = Arrival::new(Silent, Budget::new(1).share());
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let outcome = tokio::time::timeout(2 * MESSAGE_TIMEOUT, frame).await.expect("it is given up");
        let refused = outcome.expect("not its end").map(drop).expect_err("no message");
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded);
    }

    #[test]
    fn bytes_count_when_they_arrive_and_not_when_they_are_announced() {
        let budget = Budget::new(10_000);
        // The header of a message of 7936 bytes, and some of it.
        let arrive = |some: usize| {
            let bytes = [vec![0, 0, 0, 0x1f, 0], vec![7; some]].concat();
            let mut body = Arrival::new(http_body_util::Full::new(Bytes::from(bytes)), budget.share());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let frame = Pin::new(&mut body).poll_frame(&mut cx);
            let Poll::Ready(Some(frame)) = frame else { panic!("no frame") };
            frame.map(|_| body)
        };
        let announced: Vec<_> = (0..100).map(|_| arrive(0).unwrap()).collect();
        assert_eq!(budget.used.load(Ordering::Relaxed), 500);
        let first = arrive(7000).unwrap();
        assert_eq!(arrive(7000).map(drop).unwrap_err().message(), "etcdserver: too many requests");
        drop(first);
        assert!(arrive(7000).is_ok());
        drop(announced);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn lengths_are_read_however_the_bytes_are_cut() {
        let mut bytes = vec![0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0];
        bytes.extend([0, 0xff, 0xff, 0xff, 0xff]);
        for size in 1..=bytes.len() {
            let mut lengths = Lengths::default();
            let read: Result<Vec<()>, Status> = bytes.chunks(size).map(|chunk| lengths.read(chunk)).collect();
            assert_eq!(
                read.unwrap_err().message(),
                "grpc: received message larger than max (4294967295 vs. 2097152)"
            );
        }
    }

    #[test]
    fn timeouts_are_read() {
        let read = |text: &str| {
            timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(read("20m"), Some(Duration::from_millis(20)));
        for nonsense in ["", "S", "123456789S", "1X", "-1S", "é"] {
            assert_eq!(
                "x".parse::<http::HeaderValue>()
                    .ok()
                    .and_then(|_| nonsense.parse::<http::HeaderValue>().ok())
                    .and_then(|value| timeout(&HeaderMap::from_iter([(
                        "grpc-timeout".parse().unwrap(),
                        value
                    )]))),
                None,
                "{nonsense}"
            );
        }
    }
}
