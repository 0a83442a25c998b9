//! The results, as a table and as JSON.

use serde_json::{Value, json};

/// Rows of figures.
#[derive(Default)]
pub struct Table(Vec<Row>);

/// One figure of both programs.
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// knockd 0.8's values, one per round.
    pub original: Vec<f64>,
    /// Our values, one per round.
    pub ours: Vec<f64>,
    /// How the value was obtained, or why there is nothing to compare with.
    pub note: String,
}

/// The median of the numbers. Ignores NaN, which marks a void round.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| !value.is_nan())
        .collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

impl Row {
    /// ours / original for each round.
    fn ratios(&self) -> Vec<f64> {
        let rounds = self.ours.iter().zip(&self.original);
        let ratios = rounds.map(|(ours, original)| ours / original);
        ratios.filter(|ratio| ratio.is_finite()).collect()
    }

    /// The number of rounds in which a packet was lost.
    fn void(&self) -> usize {
        let all = self.ours.iter().chain(&self.original);
        all.filter(|value| value.is_nan()).count()
    }
}

impl Table {
    /// Adds a row and prints it.
    pub fn add(&mut self, row: Row) {
        eprint!("{}", line(&row));
        self.0.push(row);
    }

    /// For humans.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{:<58} {:>6} {:>10} {:>10}  ratio ours/knockd: median (min to max)\n",
            "medians", "unit", "knockd 0.8", "ours"
        );
        self.0.iter().for_each(|row| text.push_str(&line(row)));
        text
    }

    /// For programs, with all rounds.
    pub fn json(&self) -> String {
        let rows: Vec<Value> = self
            .0
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "unit": row.unit, "note": row.note,
                    "knockd": row.original, "ours": row.ours,
                    "knockd_median": median(&row.original), "ours_median": median(&row.ours),
                    "ratio_median": median(&row.ratios()), "void_rounds": row.void(),
                    "ratio_min": least(&row.ratios()), "ratio_max": most(&row.ratios()),
                })
            })
            .collect();
        format!("{:#}\n", Value::from(rows))
    }
}

fn line(row: &Row) -> String {
    let ratios = row.ratios();
    let (least, most) = (least(&ratios), most(&ratios));
    let ratio = match ratios.is_empty() {
        true => String::new(),
        false => format!("{:.3} ({least:.3} to {most:.3})", median(&ratios)),
    };
    let void = match row.void() {
        0 => String::new(),
        number => format!("  ({number} rounds void)"),
    };
    let figure = |values: &[f64]| match values.is_empty() {
        true => "-".to_string(),
        false => format!("{:.2}", median(values)),
    };
    format!(
        "{:<58} {:>6} {:>10} {:>10}  {ratio}{void}{}{}\n",
        row.what,
        row.unit,
        figure(&row.original),
        figure(&row.ours),
        if row.note.is_empty() { "" } else { "  " },
        row.note
    )
}
