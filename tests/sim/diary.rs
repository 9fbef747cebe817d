//! The last events of a run, in plain words. Nothing is written while nobody wants to read it: a run that fails is run again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::time::{MILLI, Time};

/// How many events are kept.
const KEPT: usize = 60;

#[derive(Debug, Clone, Default)]
pub(crate) struct Diary {
    lines: Option<Rc<RefCell<VecDeque<String>>>>,
}

impl Diary {
    /// One that is written.
    pub(crate) fn open() -> Self {
        Self { lines: Some(Rc::default()) }
    }

    /// Something happens.
    pub(crate) fn say(&self, now: Time, words: impl FnOnce() -> String) {
        let Some(lines) = &self.lines else { return };
        let mut lines = lines.borrow_mut();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        let line = format!("{:>12.3} ms  {}", now as f64 / MILLI as f64, words());
        if std::env::var_os("QUORATE_DIARY").is_some() {
            eprintln!("{line}");
        }
        lines.push_back(line);
    }

    /// What was written last.
    pub(crate) fn last(&self) -> Vec<String> {
        self.lines.iter().flat_map(|lines| lines.borrow().clone()).collect()
    }
}
