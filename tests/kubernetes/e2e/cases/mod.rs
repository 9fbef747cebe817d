//! Every case that a cluster has to get through, each with a cluster of its own and clients at work, and a table of what it cost.
//!
//! `make test-all` runs them; `make test-all CASE=name` one alone, and `make test-all GO_ON=1` those that have not passed yet. A case that fails
//! stops no other: what was seen is printed, and its cluster goes.

mod changes;
mod faults;
mod progress;
mod rollouts;
mod scene;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::progress::Progress;
use self::scene::Scene;
use self::table::{Outcome, Row};
use crate::kubectl;
use crate::story::{NAMESPACE, Story};

/// What is planned hands leadership over, and costs clients this at most.
const PLANNED: Duration = Duration::from_secs(1);
/// What is not costs an election, of half a second to one, and a second.
const UNPLANNED: Duration = Duration::from_secs(2);

/// One case.
pub(crate) struct Case {
    name: &'static str,
    /// The members that the cluster begins with.
    members: u32,
    /// The longest time in which no write may be acknowledged. None where the case takes the cluster away for a while.
    bound: Option<Duration>,
    /// What is done. It returns when its effect is seen, with the members that the cluster is to have.
    act: fn(&mut Scene) -> Result<u32, String>,
    /// It needs the rights of whoever runs the Kubernetes: it is left out on a cluster of the user's.
    local: bool,
}

impl Case {
    const fn new(
        name: &'static str,
        members: u32,
        bound: Duration,
        act: fn(&mut Scene) -> Result<u32, String>,
    ) -> Self {
        Self { name, members, bound: Some(bound), act, local: false }
    }

    const fn outage(self) -> Self {
        Self { bound: None, ..self }
    }

    const fn local(self) -> Self {
        Self { local: true, ..self }
    }
}

/// What is asked of a run.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// One case alone.
    pub(crate) case: Option<String>,
    /// Those that have passed before are not run again.
    pub(crate) go_on: bool,
}

impl Options {
    /// `--all [--case NAME] [--go-on]`. None without the first: what else test programs are told is not for this one.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut all, mut options) = (false, Self::default());
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--all" => all = true,
                "--go-on" => options.go_on = true,
                "--case" => options.case = Some(arguments.next().ok_or("--case wants the name of a case")?),
                _ => {}
            }
        }
        Ok(all.then_some(options))
    }
}

/// All of them.
fn cases() -> impl Iterator<Item = &'static Case> {
    changes::CASES.iter().chain(faults::CASES).chain(rollouts::CASES)
}

/// Runs them, and prints the table.
pub(crate) fn run(options: &Options) -> ExitCode {
    match Progress::open(options.go_on).and_then(|progress| run_all(options, progress)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(options: &Options, mut progress: Progress) -> Result<bool, String> {
    if let Some(name) = options.case.as_ref().filter(|name| cases().all(|case| case.name != **name)) {
        let names: Vec<_> = cases().map(|case| case.name).collect();
        return Err(format!("there is no case {name}. There are: {}", names.join(", ")));
    }
    let mut story = Story::begin()?;
    story.prepare()?;
    let mut rows = Vec::new();
    for case in cases().filter(|case| options.case.as_ref().is_none_or(|name| case.name == name)) {
        let row = match progress.passed(case.name) {
            Some(row) => row,
            None if case.local && kubectl::context().is_some() => {
                Row { outcome: Outcome::LeftOut, ..Row::of(case.name, case.bound) }
            }
            None => run_one(case),
        };
        progress.note(&row)?;
        rows.push(row);
    }
    table::print(&rows);
    let passed = rows.iter().all(|row| row.outcome != Outcome::Failed);
    if passed {
        story.end()?;
    }
    Ok(passed)
}

fn run_one(case: &Case) -> Row {
    let began = Instant::now();
    println!("case {} ...", case.name);
    let mut row = Row::of(case.name, case.bound);
    let result = Scene::begin(case.members).and_then(|scene| play(case, scene, &mut row));
    let result = result.and_then(|()| match (row.pause, case.bound) {
        (Some(pause), Some(bound)) if pause > bound => {
            Err(format!("no write was acknowledged for {pause:?}, and the bound is {bound:?}"))
        }
        _ => Ok(()),
    });
    row.outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
    if let Err(error) = result {
        println!("case {} ... FAILED\n\n{error}\n\n{}", case.name, kubectl::circumstances(NAMESPACE));
    }
    if let Err(error) = scene::clear() {
        println!("  what the case has made does not go: {error}");
        row.outcome = Outcome::Failed;
    }
    println!("case {} ... {} ({:.1} s)", case.name, row.outcome, began.elapsed().as_secs_f64());
    row
}

fn play(case: &Case, mut scene: Scene, row: &mut Row) -> Result<(), String> {
    let began = Instant::now();
    let members = (case.act)(&mut scene)?;
    scene.until_ready(members)?;
    row.ready = Some(began.elapsed());
    row.pause = Some(scene.longest_pause()?);
    scene.end()
}
