//! A sequence in which everything costs the logarithm of its length: reaching a place, inserting
//! and removing there, and finding by order. Copies share what they have in common, so a decision
//! can try changes on a copy of a large value and throw them away.
//!
//! It is a weight-balanced tree (Nievergelt and Reingold 1973) with the balance that Hirai and
//! Yamamoto proved right for insertion and removal ("Balancing weight-balanced trees", 2011): a
//! side weighs at most three times the other, and turns once or twice by a ratio of two. A node
//! that nobody shares is changed in place. One structure serves lists (by place), hashes and sets
//! (by name) and both orders of sorted sets; a hash map was rejected, because it cannot be copied
//! cheaply and its order would differ between a run and its replay.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// A sequence that can be copied at once.
#[derive(Debug, Clone)]
pub struct Tree<T> {
    root: Link<T>,
}

type Link<T> = Option<Arc<Node<T>>>;

#[derive(Debug, Clone)]
struct Node<T> {
    item: T,
    size: usize,
    left: Link<T>,
    right: Link<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T> Tree<T> {
    /// How many items.
    pub fn len(&self) -> usize {
        size(&self.root)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The item at a place.
    pub fn get(&self, mut place: usize) -> Option<&T> {
        let mut at = self.root.as_deref();
        while let Some(node) = at {
            let before = size(&node.left);
            match place.cmp(&before) {
                Ordering::Less => at = node.left.as_deref(),
                Ordering::Equal => return Some(&node.item),
                Ordering::Greater => {
                    place -= before + 1;
                    at = node.right.as_deref();
                }
            }
        }
        None
    }

    /// The place of the item that `order` calls equal, or where it would stand. `order` says how an
    /// item compares with what is sought; the items must be sorted by it.
    ///
    /// # Errors
    /// The place where it would stand.
    pub fn find(&self, order: impl Fn(&T) -> Ordering) -> Result<usize, usize> {
        let mut at = self.root.as_deref();
        let mut place = 0;
        while let Some(node) = at {
            match order(&node.item) {
                Ordering::Greater => at = node.left.as_deref(),
                Ordering::Equal => return Ok(place + size(&node.left)),
                Ordering::Less => {
                    place += size(&node.left) + 1;
                    at = node.right.as_deref();
                }
            }
        }
        Err(place)
    }

    /// The items from a place on, in order.
    pub fn iter_from(&self, place: usize) -> Iter<'_, T> {
        let mut stack = Vec::new();
        let (mut at, mut place) = (self.root.as_deref(), place);
        while let Some(node) = at {
            let before = size(&node.left);
            if place <= before {
                stack.push(node);
                if place == before {
                    break;
                }
                at = node.left.as_deref();
            } else {
                place -= before + 1;
                at = node.right.as_deref();
            }
        }
        Iter { stack }
    }

    /// All items in order.
    pub fn iter(&self) -> Iter<'_, T> {
        self.iter_from(0)
    }
}

impl<T: Clone> Tree<T> {
    /// Puts an item at a place; those from there on move up.
    ///
    /// # Panics
    /// When the place lies beyond the end.
    pub fn insert(&mut self, place: usize, item: T) {
        assert!(place <= self.len(), "a place in the sequence");
        insert(&mut self.root, place, item);
    }

    /// Puts an item at the end.
    pub fn push(&mut self, item: T) {
        self.insert(self.len(), item);
    }

    /// Takes an item out; those behind it move down.
    pub fn remove(&mut self, place: usize) -> Option<T> {
        (place < self.len()).then(|| remove(&mut self.root, place))
    }

    /// Puts an item in the stead of another, which it gives.
    pub fn replace(&mut self, place: usize, item: T) -> Option<T> {
        let mut at = self.root.as_mut();
        let mut place = place;
        loop {
            let node = Arc::make_mut(at?);
            let before = size(&node.left);
            match place.cmp(&before) {
                Ordering::Less => at = node.left.as_mut(),
                Ordering::Equal => return Some(core::mem::replace(&mut node.item, item)),
                Ordering::Greater => {
                    place -= before + 1;
                    at = node.right.as_mut();
                }
            }
        }
    }
}

impl<T: Clone> FromIterator<T> for Tree<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut tree = Self::default();
        items.into_iter().for_each(|item| tree.push(item));
        tree
    }
}

impl<T: PartialEq> PartialEq for Tree<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Items in order; see [`Tree::iter_from`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    /// Nodes not given yet whose left sides are done, the next one last.
    stack: Vec<&'a Node<T>>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let node = self.stack.pop()?;
        let mut at = node.right.as_deref();
        while let Some(next) = at {
            self.stack.push(next);
            at = next.left.as_deref();
        }
        Some(&node.item)
    }
}

fn size<T>(link: &Link<T>) -> usize {
    link.as_ref().map_or(0, |node| node.size)
}

impl<T> Node<T> {
    fn count(&mut self) {
        self.size = size(&self.left) + size(&self.right) + 1;
    }
}

fn insert<T: Clone>(link: &mut Link<T>, place: usize, item: T) {
    let Some(node) = link else {
        *link = Some(Arc::new(Node { item, size: 1, left: None, right: None }));
        return;
    };
    let node = Arc::make_mut(node);
    let before = size(&node.left);
    if place <= before {
        insert(&mut node.left, place, item);
    } else {
        insert(&mut node.right, place - before - 1, item);
    }
    node.size += 1;
    balance(link);
}

fn remove<T: Clone>(link: &mut Link<T>, place: usize) -> T {
    let node = Arc::make_mut(link.as_mut().expect("the place is in the tree"));
    let before = size(&node.left);
    let item = match place.cmp(&before) {
        Ordering::Less => remove(&mut node.left, place),
        Ordering::Greater => remove(&mut node.right, place - before - 1),
        Ordering::Equal if node.right.is_none() => {
            let left = node.left.take();
            let gone = core::mem::replace(link, left).expect("this node");
            return Arc::unwrap_or_clone(gone).item;
        }
        Ordering::Equal => {
            let next = remove(&mut node.right, 0);
            core::mem::replace(&mut node.item, next)
        }
    };
    node.size -= 1;
    balance(link);
    item
}

/// Whether the second side weighs too much beside the first.
fn heavy(light: usize, heavy: usize) -> bool {
    (light + 1) * 3 < heavy + 1
}

/// Whether one turn is enough: the outer part of the heavy side weighs more than half the inner.
fn single(inner: usize, outer: usize) -> bool {
    inner + 1 < (outer + 1) * 2
}

fn balance<T: Clone>(link: &mut Link<T>) {
    let Some(node) = link else { return };
    let (left, right) = (size(&node.left), size(&node.right));
    if heavy(left, right) {
        let node = Arc::make_mut(node);
        let side = node.right.as_ref().expect("the heavy side");
        if !single(size(&side.left), size(&side.right)) {
            turn_right(&mut node.right);
        }
        turn_left(link);
    } else if heavy(right, left) {
        let node = Arc::make_mut(node);
        let side = node.left.as_ref().expect("the heavy side");
        if !single(size(&side.right), size(&side.left)) {
            turn_left(&mut node.left);
        }
        turn_right(link);
    }
}

/// The right child becomes the parent.
fn turn_left<T: Clone>(link: &mut Link<T>) {
    let mut parent = link.take().expect("a node to turn");
    let low = Arc::make_mut(&mut parent);
    let mut child = low.right.take().expect("a child to rise");
    let high = Arc::make_mut(&mut child);
    low.right = high.left.take();
    low.count();
    high.left = Some(parent);
    high.count();
    *link = Some(child);
}

/// The left child becomes the parent.
fn turn_right<T: Clone>(link: &mut Link<T>) {
    let mut parent = link.take().expect("a node to turn");
    let low = Arc::make_mut(&mut parent);
    let mut child = low.left.take().expect("a child to rise");
    let high = Arc::make_mut(&mut child);
    low.left = high.right.take();
    low.count();
    high.right = Some(parent);
    high.count();
    *link = Some(child);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T>(link: &Link<T>) -> usize {
        let Some(node) = link else { return 0 };
        let (left, right) = (check(&node.left), check(&node.right));
        assert_eq!(node.size, left + right + 1);
        assert!(!heavy(left, right) && !heavy(right, left), "{left} against {right}");
        node.size
    }

    proptest! {
        #[test]
        fn it_is_a_sequence(moves in prop::collection::vec((0..4u8, any::<usize>()), 1..300)) {
            let (mut tree, mut model) = (Tree::default(), Vec::new());
            let mut copies: Vec<(Tree<usize>, Vec<usize>)> = Vec::new();
            for (i, (what, place)) in moves.into_iter().enumerate() {
                let len = model.len();
                match what {
                    0 | 1 => {
                        tree.insert(place % (len + 1), i);
                        model.insert(place % (len + 1), i);
                    }
                    2 if len > 0 => {
                        prop_assert_eq!(tree.remove(place % len), Some(model.remove(place % len)));
                    }
                    3 if len > 0 => {
                        prop_assert!(tree.replace(place % len, i).is_some());
                        model[place % len] = i;
                    }
                    _ => copies.push((tree.clone(), model.clone())),
                }
                check(&tree.root);
            }
            copies.push((tree, model));
            for (tree, model) in copies {
                prop_assert!(tree.iter().eq(model.iter()));
                for place in 0..=model.len() {
                    prop_assert!(tree.iter_from(place).eq(model[place..].iter()));
                    prop_assert_eq!(tree.get(place), model.get(place));
                }
            }
        }

        #[test]
        fn it_finds_by_order(
            items in prop::collection::btree_set(0..500u32, 0..100),
            seek in 0..500u32,
        ) {
            let tree: Tree<u32> = items.iter().copied().collect();
            let sorted: Vec<u32> = items.into_iter().collect();
            prop_assert_eq!(tree.find(|item| item.cmp(&seek)), sorted.binary_search(&seek));
        }
    }
}
