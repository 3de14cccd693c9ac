use std::time::{Duration, Instant};

/// Prints rows, each measured in pairs.
#[derive(Debug)]
pub(crate) struct Table {
    pairs: usize,
}

impl Table {
    pub(crate) fn new(pairs: usize) -> Self {
        println!("median of {pairs} pairs; the ratio is the median of the pairs' ratios");
        println!("{:<58} {:>11} {:>11} {:>7}  wanted", "A / B", "A", "B", "A / B");
        Self { pairs }
    }

    /// Times two things in turns. The first pair of each warms up, and does not count.
    pub(crate) fn time(&mut self, row: &str, wanted: &str, mut a: impl FnMut(), mut b: impl FnMut()) {
        let clock = |work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            start.elapsed()
        };
        self.durations(row, wanted, || clock(&mut a), || clock(&mut b));
    }

    /// The same for what measures itself.
    pub(crate) fn durations(
        &mut self,
        row: &str,
        wanted: &str,
        mut a: impl FnMut() -> Duration,
        mut b: impl FnMut() -> Duration,
    ) {
        a();
        b();
        let seconds: Vec<(f64, f64)> = (0..self.pairs)
            .map(|_| (a().as_secs_f64(), b().as_secs_f64()))
            .collect();
        let times = (
            median(seconds.iter().map(|pair| pair.0)),
            median(seconds.iter().map(|pair| pair.1)),
        );
        let ratio = median(seconds.iter().map(|pair| pair.0 / pair.1));
        let text = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
        print(row, &text(times.0), &text(times.1), ratio, wanted);
    }

    /// Two numbers that need no median.
    pub(crate) fn numbers(&mut self, row: &str, wanted: &str, unit: &str, a: f64, b: f64) {
        let text = |number: f64| format!("{number:.0} {unit}");
        print(row, &text(a), &text(b), a / b, wanted);
    }
}

fn print(row: &str, a: &str, b: &str, ratio: f64, wanted: &str) {
    println!("{row:<58} {a:>11} {b:>11} {ratio:>7.2}  {wanted}");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
