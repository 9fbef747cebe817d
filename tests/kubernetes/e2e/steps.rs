//! Runs the steps of the story, named and timed.

use std::process::ExitCode;
use std::time::Instant;

use crate::kubectl;
use crate::story::Story;

/// One step: its name, and what it does. An error says what was expected and what was seen.
pub(crate) type Step = (&'static str, fn(&mut Story) -> Result<(), String>);

/// Runs `steps` in order until one fails.
pub(crate) fn run(steps: &[Step]) -> ExitCode {
    let mut story = match Story::begin() {
        Ok(story) => story,
        Err(error) => {
            println!("{error}\n\n0 passed, 1 failed");
            return ExitCode::FAILURE;
        }
    };
    for (passed, (name, step)) in steps.iter().enumerate() {
        let began = Instant::now();
        println!("step {name} ...");
        if let Err(error) = step(&mut story) {
            println!("step {name} ... FAILED\n\n{error}\n\n{}", kubectl::circumstances(story.namespace()));
            println!("{passed} passed, 1 failed, {} skipped", steps.len() - passed - 1);
            return ExitCode::FAILURE;
        }
        println!("step {name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
    }
    println!("{} passed, 0 failed", steps.len());
    ExitCode::SUCCESS
}
