//! Members with scores, in two orders.

use core::cmp::Ordering;

use super::Bytes;
use crate::tree::Tree;

/// Members with scores: by member, and by score and then member.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sorted {
    members: Tree<(Bytes, f64)>,
    ranks: Tree<(Bytes, f64)>,
}

impl Sorted {
    /// How many members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        let place = self.members.find(|(other, _)| (**other).cmp(member)).ok()?;
        self.members.get(place).map(|(_, score)| *score)
    }

    /// How many members stand before this one; `None` when it is not there.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        self.ranks.find(|other| by_rank(other, (member, score))).ok()
    }

    /// Members and scores in the order of scores, equal ones by member.
    pub fn ranks(&self) -> &Tree<(Bytes, f64)> {
        &self.ranks
    }

    /// Members and scores in the order of members.
    pub fn members(&self) -> &Tree<(Bytes, f64)> {
        &self.members
    }

    pub(super) fn set(&mut self, member: &Bytes, score: f64) {
        match self.members.find(|(other, _)| (**other).cmp(member)) {
            Ok(place) => {
                let old = self.members.replace(place, (member.clone(), score));
                self.unrank(member, old.expect("it was found").1);
            }
            Err(place) => self.members.insert(place, (member.clone(), score)),
        }
        let place = self.ranks.find(|other| by_rank(other, (member, score)));
        self.ranks.insert(place.unwrap_or_else(|place| place), (member.clone(), score));
    }

    pub(super) fn unset(&mut self, member: &[u8]) {
        if let Ok(place) = self.members.find(|(other, _)| (**other).cmp(member)) {
            let (_, score) = self.members.remove(place).expect("it was found");
            self.unrank(member, score);
        }
    }

    fn unrank(&mut self, member: &[u8], score: f64) {
        let place = self.ranks.find(|other| by_rank(other, (member, score)));
        self.ranks.remove(place.expect("both orders hold the same"));
    }
}

fn by_rank(item: &(Bytes, f64), (member, score): (&[u8], f64)) -> Ordering {
    // Zero and minus zero are one score.
    (item.1 + 0.0).total_cmp(&(score + 0.0)).then_with(|| (*item.0).cmp(member))
}
