//! The log's way to stderr.
//!
//! What reads stderr may stand still, and a full pipe holds up whatever writes to it: the loop, which owes heartbeats, among others. So lines
//! wait in a queue, and a thread of their own writes them. When the queue is full lines are lost; how many is said when there is room again.
//! What is said last, before the process ends, gets a moment to be written.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The most bytes that wait. As many may be on their way already.
const MOST_BYTES: usize = 1 << 20;

/// How long the end of the process waits for its last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How soon a stderr that was opened so as not to wait is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// There is one stderr, and a panic comes without warning.
static LINES: Lines = Lines {
    queue: Mutex::new(Queue { waiting: Vec::new(), is_writing: false, has_thread: false, lost: 0 }),
    arrived: Condvar::new(),
    written: Condvar::new(),
};

/// Lines on their way to stderr.
struct Lines {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Nothing is left to be written.
    written: Condvar,
}

struct Queue {
    /// Whole lines.
    waiting: Vec<u8>,
    /// The thread writes what waited before.
    is_writing: bool,
    /// Until there is one, lines are written by those who say them.
    has_thread: bool,
    /// Lines for which there was no room, since the last one that was written.
    lost: u64,
}

/// Starts the thread that writes the log.
pub fn start() -> io::Result<()> {
    LINES.queue.lock().has_thread = true;
    let started = std::thread::Builder::new().name("log".into()).spawn(|| LINES.run());
    started.map(drop).inspect_err(|_| LINES.queue.lock().has_thread = false)
}

/// Takes what is written to it for lines of the log, a whole number of them at a time.
pub fn writer() -> impl Write {
    Writer
}

/// Says what there is to say before the process ends, and waits until it is written, for a moment.
pub fn last_words(words: fmt::Arguments<'_>) {
    let mut text = String::new();
    let _ = writeln!(text, "{words}");
    LINES.push(text.as_bytes(), usize::MAX);
    flush();
}

/// Waits until everything is written, for a moment.
pub fn flush() {
    LINES.flush(LAST_WORDS);
}

impl Lines {
    /// Leaves `line` for the thread, unless more than `most` bytes would wait then.
    fn push(&self, line: &[u8], most: usize) {
        let mut queue = self.queue.lock();
        if !queue.has_thread {
            drop(queue);
            write(&mut io::stderr(), line);
        } else if queue.waiting.len() + line.len() > most {
            queue.lost += 1;
        } else {
            queue.waiting.extend_from_slice(line);
            self.arrived.notify_one();
        }
    }

    fn run(&self) {
        loop {
            let lines = self.take();
            write(&mut io::stderr(), &lines);
            let lost = mem::take(&mut self.queue.lock().lost);
            if lost > 0 {
                // As one more line, in the form of the others. There is room for it again.
                tracing::warn!(lost, "lines of the log were lost: stderr was not read");
            }
        }
    }

    /// Waits for lines, and takes them all.
    fn take(&self) -> Vec<u8> {
        let mut queue = self.queue.lock();
        queue.is_writing = false;
        while queue.waiting.is_empty() {
            self.written.notify_all();
            self.arrived.wait(&mut queue);
        }
        queue.is_writing = true;
        mem::take(&mut queue.waiting)
    }

    fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut queue = self.queue.lock();
        while queue.has_thread && (queue.is_writing || !queue.waiting.is_empty()) {
            if self.written.wait_until(&mut queue, end).timed_out() {
                return;
            }
        }
    }
}

/// Writes all of it, however long that takes. What cannot be written is lost: there is nowhere to say so.
fn write(out: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return,
            Ok(count) => bytes = &bytes[count..],
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
                _ => return,
            },
        }
    }
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        LINES.push(lines, MOST_BYTES);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        let queue = Queue { waiting: Vec::new(), is_writing: false, has_thread: true, lost: 0 };
        Lines { queue: Mutex::new(queue), arrived: Condvar::new(), written: Condvar::new() }
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_last_words_are_kept() {
        let lines = lines();
        for _ in 0..5 {
            lines.push(b"a line\n", 20);
        }
        lines.push(b"the end\n", usize::MAX);
        let queue = lines.queue.lock();
        assert_eq!((&queue.waiting[..], queue.lost), (&b"a line\na line\nthe end\n"[..], 3));
    }

    #[test]
    fn nobody_waits_for_ever_for_a_reader() {
        let lines = lines();
        lines.push(b"a line\n", 20);
        lines.flush(Duration::from_millis(1));
        assert_eq!(lines.take(), b"a line\n");
        lines.flush(Duration::from_millis(1));
    }

    /// A pipe that takes a byte at a time, and often none.
    struct Narrow(Vec<u8>, u32);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 % 3 {
                0 => Err(ErrorKind::WouldBlock.into()),
                1 => Err(ErrorKind::Interrupted.into()),
                _ => self.0.write(&bytes[..1]),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_is_written_however_little_goes_at_a_time() {
        let mut out = Narrow(Vec::new(), 0);
        write(&mut out, b"a line\n");
        assert_eq!(out.0, b"a line\n");
    }
}
