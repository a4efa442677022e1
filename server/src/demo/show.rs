//! What there is to see: a picture that is redrawn while the sale runs, and the report at its end.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment, Color, LineStyle, Table, TableStyle};

use super::figures::{Figures, Percentiles};
use super::sale::Outcome;

/// Between two lines where nothing can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(3);
const BAR: usize = 40;
/// Lines where they part something, and nowhere else.
const LINES: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('─', '─', '─', '─'))
    .header_separator(LineStyle::new('─', '─', '─', '─'))
    .bottom_border(LineStyle::new('─', '─', '─', '─'));

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub orders: u32,
    pub placed: u32,
    pub sold: u32,
    pub refused: u32,
    pub paid: u32,
    pub shipped: u32,
    pub dead: u32,
    pub stale: u32,
    pub conflicts: u32,
    pub nights: u32,
    pub killed: usize,
    pub frozen: usize,
    pub workers: usize,
    /// How long the server was away each time.
    pub restarts: Vec<Duration>,
    /// Messages in each queue, in the order of `desk::QUEUES`.
    pub depths: [u64; 5],
    /// All waits for locks together, in microseconds, and how many they were.
    pub waited_us: (u64, u64),
}

impl Progress {
    /// Orders that a stock commit has decided about.
    pub fn handled(&self) -> u32 {
        self.sold + self.refused
    }

    fn ended(&self) -> u32 {
        self.shipped + self.refused + self.dead
    }
}

/// Draws progress.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    /// stdout is for the JSON.
    to_stderr: bool,
    began: Instant,
    /// When the last line was due, and the one before it: rates are taken over the time since
    /// that, so that they do not jump.
    marks: [Option<(Instant, Progress)>; 2],
    lines: usize,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        let terminal = match json {
            true => std::io::stderr().is_terminal(),
            false => std::io::stdout().is_terminal(),
        };
        Self { terminal, to_stderr: json, began: Instant::now(), marks: [None, None], lines: 0 }
    }

    /// Shows where things stand; on a terminal over the last picture, elsewhere now and then.
    pub fn draw(&mut self, progress: &Progress) {
        let due = self.marks[1].as_ref().is_none_or(|(at, _)| at.elapsed() >= LINE_EVERY);
        if !self.terminal && !due {
            return;
        }
        let text = match self.terminal {
            true => self.picture(progress),
            false => self.line(progress),
        };
        let up = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        self.lines = if self.terminal { text.lines().count() } else { 0 };
        match self.terminal {
            // Without wrapping, or the lines to go up would be more than were written.
            true => self.write(&format!("{up}\x1b[?7l{text}\x1b[?7h\n")),
            false => self.write(&format!("{text}\n")),
        }
        if due {
            self.marks.swap(0, 1);
            self.marks[1] = Some((Instant::now(), progress.clone()));
        }
    }

    /// Says something that stays.
    pub fn say(&mut self, text: &str) {
        let clear = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        self.lines = 0;
        let seconds = self.began.elapsed().as_secs_f64();
        self.write(&format!("{clear}[{seconds:6.1} s] {text}\n"));
    }

    fn write(&self, text: &str) {
        // Nobody may be watching any more; the sale goes on.
        match self.to_stderr {
            true => std::io::stderr().write_all(text.as_bytes()).ok(),
            false => std::io::stdout().write_all(text.as_bytes()).ok(),
        };
    }

    fn earlier(&self) -> Option<&(Instant, Progress)> {
        let [earlier, later] = &self.marks;
        earlier.as_ref().or(later.as_ref())
    }

    fn rate(&self, of: impl Fn(&Progress) -> u32, now: &Progress) -> f64 {
        let Some((at, before)) = self.earlier() else { return 0.0 };
        let since = at.elapsed().as_secs_f64().max(0.1);
        f64::from(of(now).saturating_sub(of(before))) / since
    }

    /// How long locks were waited for of late, on average.
    fn lock_wait_ms(&self, now: &Progress) -> f64 {
        let before = self.earlier().map_or((0, 0), |(_, progress)| progress.waited_us);
        let (us, count) = (now.waited_us.0 - before.0, now.waited_us.1 - before.1);
        us as f64 / count.max(1) as f64 / 1000.0
    }

    fn line(&self, p: &Progress) -> String {
        let seconds = self.began.elapsed().as_secs();
        let [orders, payments, reminders, shipping, dead] = p.depths;
        format!(
            "{seconds:4} s  placed {:6}  sold {:6}  refused {:6}  shipped {:6}  dead {:4}  \
             {:5.0}/s  queues {orders}/{payments}/{reminders}/{shipping}/{dead}  \
             kills {}  restarts {}  stale {}  lock wait {:.1} ms",
            p.placed,
            p.sold,
            p.refused,
            p.shipped,
            p.dead,
            self.rate(Progress::ended, p),
            p.killed,
            p.restarts.len(),
            p.stale,
            self.lock_wait_ms(p),
        )
    }

    fn picture(&self, p: &Progress) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let share = f64::from(p.ended()) / f64::from(p.orders.max(1));
        let full = ((share * BAR as f64) as usize).min(BAR);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
        let rate = |of: fn(&Progress) -> u32| format!("{:6.0}/s", self.rate(of, p));
        let [orders, payments, reminders, shipping, dead] = p.depths;
        let server = match p.restarts.last() {
            None => "up".to_owned(),
            Some(away) => format!("up, killed once and back after {away:.0?}"),
        };
        format!(
            "\x1b[1mFlash sale\x1b[0m {bar} {:5.1} %  {seconds:.0} s\n\
             \x20 placed  {:8} {}   sold    {:8} {}   refused {:8}\n\
             \x20 paid    {:8} {}   shipped {:8} {}   dead    {:8}\n\
             \x20 queues: orders {orders}, payments {payments}, reminders {reminders}, \
             shipping {shipping}, dead {dead}\n\
             \x20 locks: wait {:.1} ms, stale writes refused {}, races lost {}\n\
             \x20 workers {} ({} asleep), \x1b[31mkilled {}\x1b[0m   server {server}   nights {}",
            share * 100.0,
            p.placed,
            rate(|p| p.placed),
            p.sold,
            rate(|p| p.sold),
            p.refused,
            p.paid,
            rate(|p| p.paid),
            p.shipped,
            rate(|p| p.shipped),
            p.dead,
            self.lock_wait_ms(p),
            p.stale,
            p.conflicts,
            p.workers,
            p.frozen,
            p.killed,
            p.nights,
        )
    }
}

/// The report for people.
pub fn report(outcome: &Outcome) -> String {
    let mut books = Table::new();
    books.load_style(LINES).set_header(["", "book", "shows"]);
    for book in &outcome.books {
        let (mark, color) = if book.balances { ("✓", Color::Green) } else { ("✗", Color::Red) };
        let name = Cell::new(book.name);
        let shows = book.wrong.first().unwrap_or(&book.shows);
        books.add_row([Cell::new(mark).fg(color), name, Cell::new(shows)]);
    }
    let mut text = format!("{books}\n{}\n", waits(&outcome.figures));
    for line in facts(outcome) {
        text.push_str(&format!("  {line}\n"));
    }
    if let Some(what) = &outcome.tampered {
        text.push_str(&format!("  falsified on purpose: {what}\n"));
    }
    for book in outcome.books.iter().filter(|book| !book.balances) {
        for wrong in &book.wrong {
            text.push_str(&red(&format!("✗ {}: {wrong}", book.name)));
        }
    }
    for wrong in &outcome.failures {
        text.push_str(&red(&format!("✗ {wrong}")));
    }
    text.push_str(match outcome.balanced {
        true => "The books balance.",
        false => "The books do not balance.",
    });
    text
}

fn red(line: &str) -> String {
    match std::io::stdout().is_terminal() {
        true => format!("\x1b[31m{line}\x1b[0m\n"),
        false => format!("{line}\n"),
    }
}

fn waits(figures: &Figures) -> Table {
    let mut table = Table::new();
    table.load_style(LINES);
    table.set_header(["ms", "count", "p50", "p90", "p99", "max"]);
    let rows = [
        ("order placed → shipped", figures.placed_to_shipped),
        ("lock asked → held", figures.lock_wait),
        ("commit asked → answered", figures.commit),
    ];
    for (name, Percentiles { count, p50_ms, p90_ms, p99_ms, max_ms }) in rows {
        let mut row = vec![Cell::new(name), Cell::new(count)];
        row.extend([p50_ms, p90_ms, p99_ms, max_ms].map(|ms| Cell::new(format!("{ms:.1}"))));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn facts(outcome: &Outcome) -> Vec<String> {
    let figures = &outcome.figures;
    let seconds = figures.seconds.max(0.001);
    let per_second = |count: u64| format!("{:.0}/s", count as f64 / seconds);
    let (own, server) = (figures.locks, figures.locks_by_server);
    let back = figures.server_restarts_ms.iter().map(|ms| format!("{ms:.0} ms"));
    vec![
        format!(
            "{} orders in {seconds:.1} s: {:.0} orders/s from end to end, {} commits ({})",
            outcome.orders,
            figures.orders_per_second,
            figures.commits,
            per_second(figures.commits)
        ),
        format!(
            "locks: {} requests ({}), {} grants ({}), {} releases ({}); the server counted \
             {}, {} and {}",
            own.requests,
            per_second(own.requests),
            own.grants,
            per_second(own.grants),
            own.releases,
            per_second(own.releases),
            server.requests,
            server.grants,
            server.releases
        ),
        format!(
            "{} workers killed; server killed, ready again after {}",
            figures.workers_killed,
            back.collect::<Vec<_>>().join(", ")
        ),
        format!(
            "absorbed: {} redeliveries, {} copies of orders, {} stale commits, {} lost races",
            figures.redelivered, figures.copies_absorbed, figures.stale_refused, figures.races_lost
        ),
    ]
}
