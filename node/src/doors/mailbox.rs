//! The replica's one queue: many senders on any thread, one receiver that takes everything at once.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::event::Event;

/// The most events that wait. Each may hold many requests or messages, which are bounded where they come from.
const CAPACITY: usize = 1 << 14;

/// The sending side. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: Vec<Event>,
    closed: bool,
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
}

/// A mailbox and its one receiver.
pub(crate) fn mailbox() -> (Mailbox, Receiver) {
    let shared = Arc::new(Shared::default());
    (Mailbox { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// The event was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Too many wait.
    Full,
    /// The receiver is gone.
    Closed,
}

impl Mailbox {
    /// Leaves an event that comes from outside. When full it is dropped: clients are told, peers will say it again.
    pub(crate) fn send(&self, event: Event) -> Result<(), Refused> {
        self.push(event, CAPACITY)
    }

    /// Leaves an event of this node's own making. Dropped only when the receiver is gone: what it tells of has happened. There are few: one
    /// for each write, job or piece of entries that the receiver itself has given out, and one a second of the disk's room.
    pub(crate) fn post(&self, event: Event) {
        let _ = self.push(event, usize::MAX);
    }

    fn push(&self, event: Event, capacity: usize) -> Result<(), Refused> {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        if queue.events.len() >= capacity {
            return Err(Refused::Full);
        }
        queue.events.push(event);
        let first = queue.events.len() == 1;
        drop(queue);
        // Whoever finds others waiting knows that the receiver has been woken for them.
        if first {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }
}

impl Receiver {
    /// Waits until something has come since the last [`Self::take`].
    pub(crate) async fn arrived(&self) {
        self.shared.arrived.notified().await;
    }

    /// Swaps everything that waits for `taken`, which is empty.
    pub(crate) fn take(&self, taken: &mut Vec<Event>) {
        debug_assert!(taken.is_empty(), "what was taken before has been dealt with");
        std::mem::swap(&mut self.shared.queue.lock().events, taken);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        queue.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_taken_at_once_and_in_order() {
        let (mailbox, receiver) = mailbox();
        let sender = std::thread::spawn(move || {
            for _ in 0..3 {
                mailbox.post(Event::Stopping);
            }
            mailbox.post(Event::Stop);
        });
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Event::Stop)) {
            receiver.arrived().await;
            let mut taken = Vec::new();
            receiver.take(&mut taken);
            all.append(&mut taken);
        }
        assert_eq!(all.len(), 4);
        sender.join().unwrap();
    }

    #[test]
    fn a_full_mailbox_refuses_what_comes_from_outside() {
        let (mailbox, receiver) = mailbox();
        for _ in 0..CAPACITY {
            mailbox.send(Event::Messages(Vec::new())).unwrap();
        }
        assert!(matches!(mailbox.send(Event::Messages(Vec::new())), Err(Refused::Full)));
        mailbox.post(Event::Stop);
        let mut taken = Vec::new();
        receiver.take(&mut taken);
        assert_eq!(taken.len(), CAPACITY + 1);
        drop(receiver);
        assert!(matches!(mailbox.send(Event::Stop), Err(Refused::Closed)));
    }
}
