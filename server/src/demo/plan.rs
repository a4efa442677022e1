//! Who orders what, how much there is of it, and when misfortune strikes: all from one seed.
//!
//! Every order is computed from its number, so the books need no copy of what was sent: they ask
//! the plan again. Only whole numbers are used, because powers and logarithms differ between
//! machines, and a seed has to mean the same sale everywhere.

use leasehold::Message;

use super::ledger::{Intent, SHOP};

/// Mean quantity of an order, times ten.
const QUANTITY_MEAN_TENTHS: u64 = 20;
/// Who sent an order: the shop, before anything happened to it.
const ORDERED: Intent = Intent { worker: SHOP, n: 0 };
/// Orders of important customers go first.
const VIP_PRIORITY: u8 = 1;

/// One sale.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub orders: u32,
    pub articles: u32,
    /// Running sums of how much each article is wanted.
    wanted: Vec<u64>,
}

/// One order of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub id: u32,
    pub article: u32,
    pub quantity: u32,
    pub vip: bool,
    /// Pays only after a reminder.
    pub late: bool,
    /// The first attempt to pay fails.
    pub declines: bool,
    /// The customer clicks twice.
    pub twice: bool,
    pub poison: Option<Poison>,
}

/// What is wrong with an order that can never be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// Its body cannot be read: it is tried until its deliveries are used up.
    Malformed,
    /// There is no such article: it is rejected at once.
    Impossible,
}

/// What travels with an order from queue to queue: five words, because a hundred thousand bodies
/// full of quotation marks, quoted again on their way, cost more than the work itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    pub order: u32,
    pub article: u32,
    pub quantity: u32,
    pub late: bool,
    pub declines: bool,
    /// The intent whose commit published this slip: the next ledger that names it proves that the
    /// commit happened, even if its worker died before it could write so.
    pub by: Intent,
}

impl Slip {
    /// The slip in a message's body.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(body).ok()?.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (order, article, quantity) = (number()?, number()?, number()?);
        let (late, declines) = match words.next()? {
            "prompt" => (false, false),
            "late" => (true, false),
            "declines" => (false, true),
            "late+declines" => (true, true),
            _ => return None,
        };
        let by = words.next()?.parse().ok()?;
        Some(Self { order, article, quantity, late, declines, by })
    }

    /// The same slip, sent on by an intent.
    pub fn sent_by(&self, by: Intent) -> Message {
        Message::new(Self { by, ..self.clone() }.body())
    }

    fn body(&self) -> String {
        let Self { order, article, quantity, late, declines, by } = self;
        let pays = match (late, declines) {
            (false, false) => "prompt",
            (true, false) => "late",
            (false, true) => "declines",
            (true, true) => "late+declines",
        };
        format!("{order} {article} {quantity} {pays} {by}")
    }
}

/// SplitMix64: a good number from any number.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws numbers, one after the other.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream)))
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % end
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

impl Plan {
    pub fn new(seed: u64, orders: u32, articles: u32) -> Self {
        let mut sum = 0;
        // The n-th article is wanted like 1/(n+3): the first ten are a third of the sale.
        let wanted = (0..u64::from(articles)).map(|n| {
            sum += 1_000_000 / (n + 3);
            sum
        });
        Self { seed, orders, articles, wanted: wanted.collect() }
    }

    /// The order with a number.
    pub fn order(&self, id: u32) -> Order {
        let mut dice = Dice::new(self.seed, u64::from(id));
        let place = dice.below(self.wanted.last().copied().unwrap_or(1));
        let article = self.wanted.partition_point(|sum| *sum <= place) as u32;
        let quantity = 1 + dice.below(3) as u32;
        let (vip, late) = (dice.one_in(20), dice.one_in(50));
        let (declines, twice) = (dice.one_in(100), dice.one_in(500));
        let poison = dice.one_in(1000).then_some(()).map(|()| match dice.one_in(2) {
            true => Poison::Malformed,
            false => Poison::Impossible,
        });
        let article = match poison {
            Some(Poison::Impossible) => self.articles + dice.below(1000) as u32,
            _ => article,
        };
        Order { id, article, quantity, vip, late, declines, twice, poison }
    }

    /// How much there is of an article at first: 60 to 130 % of what will be wanted.
    pub fn stock(&self, article: u32) -> u32 {
        let before = match article {
            0 => 0,
            n => self.wanted[n as usize - 1],
        };
        let weight = self.wanted[article as usize] - before;
        let all = self.wanted.last().copied().unwrap_or(1);
        let wanted = u64::from(self.orders) * weight * QUANTITY_MEAN_TENTHS / (10 * all);
        let mut dice = Dice::new(self.seed, u64::from(article) | 1 << 40);
        (wanted * (60 + dice.below(71)) / 100) as u32
    }

    /// Orders that must end among the dead letters.
    pub fn poison(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.orders).filter(|id| self.order(*id).poison.is_some())
    }
}

/// Whether an article's stock is changed under a lock, or else by compare-and-set.
pub fn by_lock(article: u32) -> bool {
    article.is_multiple_of(2)
}

impl Order {
    /// The order as the shop publishes it. Its id makes a second click, and a second try after an
    /// answer that never came, the same message.
    pub fn message(&self) -> Message {
        let Order { id: order, article, quantity, late, declines, .. } = *self;
        let mut body = Slip { order, article, quantity, late, declines, by: ORDERED }.body();
        if self.poison == Some(Poison::Malformed) {
            body.truncate(body.len() / 3);
        }
        let priority = if self.vip { VIP_PRIORITY } else { 0 };
        Message::new(body).priority(priority).id(message_id(order))
    }
}

/// The message id of an order.
pub fn message_id(order: u32) -> String {
    format!("order-{order}")
}

/// The order of a message id.
pub fn order_of(id: Option<&str>) -> Option<u32> {
    id?.strip_prefix("order-")?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_sale_everywhere() {
        let plan = Plan::new(1, 20_000, 500);
        let orders: Vec<Order> = (0..20_000).map(|id| plan.order(id)).collect();
        let sum = orders.iter().fold(0, |sum, o| mix(sum ^ u64::from(o.article * 4 + o.quantity)));
        assert_eq!(sum, 14_345_442_061_447_069_389, "changed on purpose? then write it here");
        let share = |f: fn(&Order) -> bool| orders.iter().filter(|o| f(o)).count();
        assert!((800..1200).contains(&share(|o| o.vip)));
        assert!((5..50).contains(&share(|o| o.poison.is_some())));
        assert!((300..500).contains(&share(|o| o.late)));
        assert!((5_000..8_000).contains(&share(|o| o.article < 10)));
        let stock: u64 = (0..500).map(|article| u64::from(plan.stock(article))).sum();
        assert!((30_000..45_000).contains(&stock), "about 95 % of 40,000 pieces: {stock}");
    }

    #[test]
    fn slips_come_back_as_they_were_sent_unless_they_are_poison() {
        let plan = Plan::new(3, 50_000, 20);
        for id in 0..50_000 {
            let order = plan.order(id);
            let slip = Slip::read(&order.message().body);
            match order.poison {
                Some(Poison::Malformed) => assert_eq!(slip, None),
                _ => {
                    let Some(slip) = slip else { panic!("order {id} cannot be read") };
                    let next = slip.sent_by(Intent { worker: 3, n: id });
                    let came = Slip::read(&next.body);
                    let by = Intent { worker: 3, n: id };
                    assert_eq!(came, Some(Slip { by, ..slip.clone() }));
                    assert_eq!(
                        (slip.order, slip.late, slip.declines),
                        (id, order.late, order.declines)
                    );
                }
            }
            assert_eq!(order_of(order.message().id.as_deref()), Some(id));
        }
    }
}
