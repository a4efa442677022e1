//! Figures: measured several times, shown as median with spread, kept as JSON.

use serde_json::{Value, json};

/// One measured quantity.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In which unit.
    pub unit: &'static str,
    /// One value per round.
    pub values: Vec<f64>,
    /// The goal, if there is one, as text.
    pub goal: &'static str,
    /// What it is also given as a ratio to: the limit's name and value.
    pub limit: Option<(&'static str, f64)>,
}

impl Figure {
    /// The middle value.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Figures {
    list: Vec<Figure>,
    /// What the titles of the cases to be measured contain, where a benchmark asks
    /// [`Figures::wants`].
    pub only: String,
}

impl Figures {
    /// Whether a case is to be measured.
    pub fn wants(&self, title: &str) -> bool {
        title.contains(&self.only)
    }

    /// Adds a figure and shows it at once.
    pub fn add(&mut self, figure: Figure) {
        let (least, most) = (figure.least(), figure.most());
        let ratio = match figure.limit {
            Some((name, value)) => format!("  = {:.2} × {name}", figure.median() / value),
            None => String::new(),
        };
        let goal = match figure.goal {
            "" => String::new(),
            goal => format!("  (goal {goal})"),
        };
        println!(
            "{:<58} {:>12} {:<8} [{} – {}]{ratio}{goal}",
            figure.name,
            show(figure.median()),
            figure.unit,
            show(least),
            show(most),
        );
        self.list.push(figure);
    }

    /// Adds a figure without goal or limit.
    pub fn plain(&mut self, name: impl Into<String>, unit: &'static str, values: Vec<f64>) {
        self.add(Figure { name: name.into(), unit, values, goal: "", limit: None });
    }

    /// The median of a figure that was added before.
    pub fn median_of(&self, name: &str) -> Option<f64> {
        self.list.iter().find(|figure| figure.name == name).map(Figure::median)
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        let figures = self.list.iter().map(|figure| {
            json!({
                "name": figure.name,
                "unit": figure.unit,
                "median": figure.median(),
                "values": figure.values,
                "goal": figure.goal,
                "ratio_to": figure.limit.map(|(name, value)| json!({
                    "limit": name, "value": value, "ratio": figure.median() / value
                })),
            })
        });
        Value::Array(figures.collect())
    }
}

fn show(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
