/*! How the results are told: to people, to TAP and JUnit readers, as JSON, and as tables. */

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use crate::case::Case;
use crate::runtime::Runtime;

/// What came of a case.
pub(crate) enum Verdict {
    /// As it must be.
    Passed,
    /// Not as it must be, or something was left behind.
    Failed(String),
    /// Could not be tried.
    Skipped(String),
    /// Failed, and `known.rs` says why that is so.
    Known(&'static str),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::Known(_) => "known",
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed(why) | Self::Skipped(why) => why,
            Self::Known(why) => why,
        }
    }
}

/// A case and what came of it.
pub(crate) struct Judgement {
    /// The case.
    pub(crate) case: Case,
    /// What came of it.
    pub(crate) verdict: Verdict,
    /// How long it took, cleaning up included.
    pub(crate) time: Duration,
}

/// Forms of output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line for each case
    Text,
    /// Test Anything Protocol
    Tap,
    /// One document
    Json,
    /// One document
    Junit,
}

impl Format {
    /// Before the first case of a runtime.
    pub(crate) fn begin(self, runtime: &Runtime, cases: usize) {
        match self {
            Self::Text => println!("# {} ({})", runtime.name, runtime.version),
            Self::Tap => println!("TAP version 14\n1..{cases}\n# {} ({})", runtime.name, runtime.version),
            Self::Json | Self::Junit => {}
        }
    }

    /// After each case.
    pub(crate) fn tell(self, number: usize, judgement: &Judgement) {
        let (name, why) = (judgement.case.name(), short(judgement.verdict.why()));
        match self {
            Self::Text => {
                println!("{:<8}{name} ({} ms)", judgement.verdict.word(), judgement.time.as_millis());
                if !why.is_empty() {
                    println!("        {}: {why}", judgement.case.clause);
                }
            }
            Self::Tap => match judgement.verdict {
                Verdict::Passed => println!("ok {number} - {name}"),
                Verdict::Failed(_) => println!("not ok {number} - {name}\n# {}: {why}", judgement.case.clause),
                Verdict::Skipped(_) => println!("ok {number} - {name} # SKIP {why}"),
                Verdict::Known(_) => println!("not ok {number} - {name} # TODO {why}"),
            },
            Self::Json | Self::Junit => {}
        }
    }

    /// After the last case of a runtime.
    pub(crate) fn end(self, runtime: &Runtime, judgements: &[Judgement]) {
        match self {
            Self::Json => println!("{}", json_document(runtime, judgements)),
            Self::Junit => print!("{}", junit_document(runtime, judgements)),
            Self::Text | Self::Tap => {}
        }
    }

    /// The closing line. It goes to stderr where stdout is a document.
    pub(crate) fn close<'a>(self, judgements: impl Iterator<Item = &'a Judgement>) {
        let line = Count::of(judgements).line();
        if self == Self::Text { println!("{line}") } else { eprintln!("{line}") }
    }
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
    known: usize,
}

impl Count {
    fn of<'a>(judgements: impl Iterator<Item = &'a Judgement>) -> Self {
        let mut count = Self::default();
        for judgement in judgements {
            *match judgement.verdict {
                Verdict::Passed => &mut count.passed,
                Verdict::Failed(_) => &mut count.failed,
                Verdict::Skipped(_) => &mut count.skipped,
                Verdict::Known(_) => &mut count.known,
            } += 1;
        }
        count
    }

    /// Known deviations count as skipped here.
    fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped + self.known)
    }
}

fn json_document(runtime: &Runtime, judgements: &[Judgement]) -> String {
    let cases: Vec<_> = judgements
        .iter()
        .map(|j| {
            json!({
                "name": j.case.name(),
                "clause": j.case.clause,
                "verdict": j.verdict.word().to_lowercase(),
                "why": j.verdict.why(),
                "ms": u64::try_from(j.time.as_millis()).unwrap_or(u64::MAX),
            })
        })
        .collect();
    json!({"runtime": runtime.name, "version": runtime.version, "cases": cases}).to_string()
}

fn junit_document(runtime: &Runtime, judgements: &[Judgement]) -> String {
    let count = Count::of(judgements.iter());
    let skipped = count.skipped + count.known;
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml += &format!(
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">\n",
        escape(&runtime.name),
        judgements.len(),
        count.failed
    );
    for j in judgements {
        let inner = match &j.verdict {
            Verdict::Passed => String::new(),
            Verdict::Failed(why) => format!("<failure message=\"{}\">{}</failure>", escape(j.case.clause), escape(why)),
            Verdict::Skipped(why) => format!("<skipped message=\"{}\"/>", escape(why)),
            Verdict::Known(why) => format!("<skipped message=\"known deviation: {}\"/>", escape(why)),
        };
        let (group, what, time) = (j.case.group, j.case.what.replace('_', "-"), j.time.as_secs_f64());
        xml += &format!("<testcase classname=\"{group}\" name=\"{what}\" time=\"{time:.3}\">{inner}</testcase>\n");
    }
    xml + "</testsuite>\n"
}

/// One line that people can read. The whole text is in the JSON and JUnit documents.
fn short(why: &str) -> String {
    let line = why.replace('\n', " | ");
    if line.chars().count() <= 500 { line } else { line.chars().take(497).chain("...".chars()).collect() }
}

fn escape(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() || *c == '\n').collect::<String>();
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

type Table = [(Runtime, Vec<Judgement>)];

/// Case by runtime, for a terminal.
pub(crate) fn table(tables: &Table) -> String {
    let Some((_, first)) = tables.first() else { return String::new() };
    let mut text = format!("\n{:<58}", "case");
    for (runtime, _) in tables {
        text += &format!("{:<14}", runtime.name);
    }
    for (row, judgement) in first.iter().enumerate() {
        text += &format!("\n{:<58}", judgement.case.name());
        for (_, judgements) in tables {
            text += &format!("{:<14}", judgements.get(row).map_or("-", |j| j.verdict.word()));
        }
    }
    text + "\n"
}

/// Case by runtime, for a file.
pub(crate) fn markdown(tables: &Table) -> String {
    let mut text = String::from(
        "# Conformance\n\n| runtime | version | passed | failed | skipped | known deviations |\n|---|---|---|---|---|---|\n",
    );
    for (runtime, judgements) in tables {
        let Count { passed, failed, skipped, known } = Count::of(judgements.iter());
        text += &format!("| {} | {} | {passed} | {failed} | {skipped} | {known} |\n", runtime.name, runtime.version);
    }
    text += "\n| case | clause |";
    text.extend(tables.iter().map(|(runtime, _)| format!(" {} |", runtime.name)));
    text += "\n|---|---|";
    text += &"---|".repeat(tables.len());
    for (row, judgement) in tables.first().map(|(_, first)| first.iter().enumerate()).into_iter().flatten() {
        text += &format!("\n| {} | {} |", judgement.case.name(), judgement.case.clause);
        for (_, judgements) in tables {
            text += &format!(" {} |", judgements.get(row).map_or("-", |j| j.verdict.word()));
        }
    }
    text += "\n\n## Why not\n";
    for (runtime, judgements) in tables {
        for j in judgements.iter().filter(|j| !j.verdict.why().is_empty()) {
            let why = short(j.verdict.why());
            text += &format!("\n- {} {} `{}`: {why}", runtime.name, j.verdict.word(), j.case.name());
        }
    }
    text + "\n"
}
