//! Several sorted sets as one: unions, intersections and differences. Sets may take part; each of
//! their members has the score 1.

use std::collections::BTreeMap;

use leasehold_core::content::{Bytes, Content, find_member};

use super::numbers::{SYNTAX, an_integer, float, integer, is};
use super::ranges;
use super::sets::Way;
use crate::Reply;
use crate::scene::{Scene, Step, WRONG_TYPE};

/// What becomes of several scores of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            // Infinities of both signs cancel.
            Self::Sum => finite(one + other),
            Self::Min if other < one => other,
            Self::Max if other > one => other,
            Self::Min | Self::Max => one,
        }
    }
}

fn finite(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One of the sets, and what its scores are multiplied with.
#[derive(Debug)]
struct Input {
    content: Option<Content>,
    weight: f64,
}

impl Input {
    fn len(&self) -> usize {
        self.content.as_ref().map_or(0, Content::len)
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match self.content.as_ref()? {
            Content::Sorted(sorted) => sorted.score(member)?,
            Content::Set(members) => find_member(members, member).ok().map(|_| 1.0)?,
            _ => return None,
        };
        // Infinity times 0 becomes 0 in the sum only.
        Some(score * self.weight)
    }

    fn each(&self, mut with: impl FnMut(&Bytes, f64)) {
        match &self.content {
            Some(Content::Sorted(sorted)) => {
                let all = sorted.ranks().iter();
                all.for_each(|(member, score)| with(member, finite(score * self.weight)));
            }
            Some(Content::Set(members)) => {
                members.iter().for_each(|member| with(member, finite(self.weight)));
            }
            _ => {}
        }
    }
}

/// What a command asks for.
#[derive(Debug)]
struct Question {
    inputs: Vec<Input>,
    aggregate: Aggregate,
    scores: bool,
    limit: usize,
}

/// What a command wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Members,
    Stored,
    Count,
}

impl Question {
    /// Reads it from the number of keys on.
    fn read(scene: &Scene, args: &[&[u8]], name: &str, way: Way, wants: Wants) -> Step<Self> {
        let count = an_integer(args[0])?;
        if count < 1 {
            let why = format!("ERR at least 1 input key is needed for '{name}' command");
            return Err(Reply::error(why));
        }
        let (keys, mut rest) = args[1..].split_at_checked(count as usize).ok_or(SYNTAX)?;
        let mut inputs = Vec::with_capacity(keys.len());
        for key in keys {
            let content = scene.content(key);
            if content.is_some_and(|it| !matches!(it, Content::Sorted(_) | Content::Set(_))) {
                return Err(WRONG_TYPE);
            }
            inputs.push(Input { content: content.cloned(), weight: 1.0 });
        }
        let mut it = Self { inputs, aggregate: Aggregate::Sum, scores: false, limit: 0 };
        while !rest.is_empty() {
            rest = &rest[it.read_option(rest, way, wants)?..];
        }
        Ok(it)
    }

    /// Reads an option; how many arguments it took.
    fn read_option(&mut self, rest: &[&[u8]], way: Way, wants: Wants) -> Step<usize> {
        let adds = way != Way::Diff && wants != Wants::Count;
        if adds && rest.len() > self.inputs.len() && is(rest[0], "WEIGHTS") {
            for (input, text) in self.inputs.iter_mut().zip(&rest[1..]) {
                let weight = float(text);
                input.weight =
                    weight.ok_or_else(|| Reply::error("ERR weight value is not a float"))?;
            }
            return Ok(1 + self.inputs.len());
        }
        if adds && rest.len() >= 2 && is(rest[0], "AGGREGATE") {
            let known = [("SUM", Aggregate::Sum), ("MIN", Aggregate::Min), ("MAX", Aggregate::Max)];
            let known = known.iter().find(|(word, _)| is(rest[1], word));
            self.aggregate = known.ok_or(SYNTAX)?.1;
            return Ok(2);
        }
        if wants == Wants::Members && is(rest[0], "WITHSCORES") {
            self.scores = true;
            return Ok(1);
        }
        if wants == Wants::Count && rest.len() >= 2 && is(rest[0], "LIMIT") {
            let limit = integer(rest[1]).and_then(|limit| usize::try_from(limit).ok());
            self.limit = limit.ok_or_else(|| Reply::error("ERR LIMIT can't be negative"))?;
            return Ok(2);
        }
        Err(SYNTAX)
    }

    /// Members with scores, in the order of scores.
    fn answer(mut self, way: Way) -> Vec<(Bytes, f64)> {
        if way != Way::Diff {
            // Scores are added from the smallest set to the largest; with fractions it matters.
            self.inputs.sort_by_key(Input::len);
        }
        let (first, others) = self.inputs.split_first().expect("at least one key");
        let mut found = BTreeMap::new();
        match way {
            Way::Union => {
                for input in &self.inputs {
                    input.each(|member, score| {
                        let sum = |before: &mut f64| *before = self.aggregate.of(*before, score);
                        found.entry(member.clone()).and_modify(sum).or_insert(score);
                    });
                }
            }
            Way::Inter => first.each(|member, score| {
                let add = |sum, other: &Input| {
                    other.score(member).map(|score| self.aggregate.of(sum, score))
                };
                if let Some(score) = others.iter().try_fold(score, add) {
                    found.insert(member.clone(), score);
                }
            }),
            Way::Diff => first.each(|member, score| {
                if !others.iter().any(|other| other.score(member).is_some()) {
                    found.insert(member.clone(), score);
                }
            }),
        }
        let mut found: Vec<(Bytes, f64)> = found.into_iter().collect();
        found.sort_by(|one, other| (one.1 + 0.0).total_cmp(&(other.1 + 0.0)));
        found
    }
}

/// ZUNION, ZINTER and ZDIFF.
pub fn combined(scene: &mut Scene, args: &[&[u8]], way: Way) -> Step<Reply> {
    let name = match way {
        Way::Union => "zunion",
        Way::Inter => "zinter",
        Way::Diff => "zdiff",
    };
    let question = Question::read(scene, &args[1..], name, way, Wants::Members)?;
    let scores = question.scores;
    Ok(ranges::show(question.answer(way), scores, scene.resp3))
}

/// ZUNIONSTORE, ZINTERSTORE and ZDIFFSTORE.
pub fn store(scene: &mut Scene, args: &[&[u8]], way: Way) -> Step<Reply> {
    let name = match way {
        Way::Union => "zunionstore",
        Way::Inter => "zinterstore",
        Way::Diff => "zdiffstore",
    };
    let question = Question::read(scene, &args[2..], name, way, Wants::Stored)?;
    let members = question.answer(way);
    ranges::keep(scene, args[1], members)
}

/// ZINTERCARD.
pub fn zintercard(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let question = Question::read(scene, &args[1..], "zintercard", Way::Inter, Wants::Count)?;
    let limit = if question.limit == 0 { usize::MAX } else { question.limit };
    Ok(Reply::Int(question.answer(Way::Inter).len().min(limit) as i64))
}
