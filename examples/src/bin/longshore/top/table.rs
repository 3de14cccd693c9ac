//! The table of `top`.

use longshore::metrics::{Flow, Usage};

use crate::images::human;

/// One column: its head, how wide it is, and what is in it. The first is the name, on the left.
struct Column {
    head: &'static str,
    width: usize,
    cell: fn(&Usage) -> String,
}

const NAME: usize = 20;

const COLUMNS: [Column; 7] = [
    Column {
        head: "CPU %",
        width: 8,
        cell: |usage| usage.cpus.map_or_else(unknown, |cpus| format!("{:.2}%", cpus * 100.0)),
    },
    Column {
        head: "MEM USAGE / LIMIT",
        width: 21,
        cell: memory,
    },
    Column {
        head: "MEM %",
        width: 8,
        cell: share_of_memory,
    },
    Column {
        head: "PIDS",
        width: 6,
        cell: |usage| usage.pids.map_or_else(unknown, |pids| pids.to_string()),
    },
    Column {
        head: "IO READ / WRITE /s",
        width: 21,
        cell: |usage| rates(usage.read, usage.written),
    },
    Column {
        head: "NET IN / OUT /s",
        width: 21,
        cell: |usage| rates(usage.received, usage.sent),
    },
    Column {
        head: "STALLED C/M/IO %",
        width: 18,
        cell: stalled,
    },
];

/// The columns that are shown.
pub(super) struct Columns(&'static [Column]);

impl Columns {
    pub(super) fn all() -> Self {
        Self(&COLUMNS)
    }

    /// Those for which there is room: a line that is too long would break.
    pub(super) fn within(width: usize) -> Self {
        let mut used = NAME;
        let fits = COLUMNS.iter().take_while(|column| {
            used += column.width + 1;
            used <= width
        });
        Self(&COLUMNS[..fits.count()])
    }

    pub(super) fn head(&self) -> String {
        self.line("NAME", |column| column.head.to_owned())
    }

    pub(super) fn row(&self, name: &str, usage: &Usage) -> String {
        self.line(name, |column| (column.cell)(usage))
    }

    fn line(&self, name: &str, cell: impl Fn(&Column) -> String) -> String {
        let mut line = format!("{:<NAME$}", shortened(name));
        for column in self.0 {
            line.push_str(&format!(" {:>width$}", cell(column), width = column.width));
        }
        line
    }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some(_) => name.chars().take(NAME - 1).chain(['…']).collect(),
        None => name.to_owned(),
    }
}

fn unknown() -> String {
    "-".to_owned()
}

fn memory(usage: &Usage) -> String {
    let Some(bytes) = usage.memory else {
        return unknown();
    };
    let limit = usage.memory_limit.map_or_else(unknown, human);
    format!("{} / {limit}", human(bytes))
}

fn share_of_memory(usage: &Usage) -> String {
    match (usage.memory, usage.memory_limit) {
        (Some(bytes), Some(limit)) if limit > 0 => format!("{:.2}%", bytes as f64 * 100.0 / limit as f64),
        _ => unknown(),
    }
}

fn rates(one: Option<Flow>, other: Option<Flow>) -> String {
    let rate = |flow: Option<Flow>| match flow.and_then(|flow| flow.per_second) {
        Some(rate) => human(rate.round() as u64),
        None => unknown(),
    };
    if one.is_none() && other.is_none() {
        return unknown();
    }
    format!("{} / {}", rate(one), rate(other))
}

fn stalled(usage: &Usage) -> String {
    let stalled = [usage.stalled.cpu, usage.stalled.memory, usage.stalled.io];
    if stalled.iter().all(Option::is_none) {
        return unknown();
    }
    let parts = stalled.map(|part| part.map_or_else(unknown, |part| format!("{:.1}", part * 100.0)));
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use longshore::runtime::{CpuStats, IoStats, MemoryStats, PidsStats, Pressure, PressureLine, Stats};

    use super::*;

    fn sample(cpu: u64, read: u64, stalled: u64) -> Stats {
        let some = PressureLine {
            total: Duration::from_millis(stalled),
            ..PressureLine::default()
        };
        let (mut cpus, mut memory, mut io, mut pids) = (
            CpuStats::default(),
            MemoryStats::default(),
            IoStats::default(),
            PidsStats::default(),
        );
        (cpus.total, cpus.pressure) = (
            Duration::from_millis(cpu),
            Some(Pressure {
                some,
                ..Pressure::default()
            }),
        );
        (memory.working_set, memory.limit) = (16_000_000, Some(64_000_000));
        io.read_bytes = read;
        pids.current = 12;
        let mut stats = Stats::now();
        (stats.cpu, stats.memory, stats.io, stats.pids) = (Some(cpus), Some(memory), Some(io), Some(pids));
        stats
    }

    fn usage() -> Usage {
        let before = sample(0, 0, 0);
        let mut now = sample(250, 4_200, 20);
        now.at = before.at + Duration::from_secs(2);
        Usage::of(&now, Some(&before))
    }

    #[test]
    fn a_row_stands_under_its_head() {
        let all = Columns::all();
        assert_eq!(
            all.head(),
            "NAME                    CPU %     MEM USAGE / LIMIT    MEM %   PIDS    IO READ / WRITE /s       NET IN / OUT /s   STALLED C/M/IO %"
        );
        assert_eq!(
            all.row("web", &usage()),
            "web                    12.50%     16.0 MB / 64.0 MB   25.00%     12          2.1 kB / 0 B                     -            1.0/-/-"
        );
        assert_eq!(
            all.head().chars().count(),
            all.row("a-name-that-is-longer-than-its-column", &usage())
                .chars()
                .count()
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let row = Columns::all().row("new", &Usage::default());
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["new", "-", "-", "-", "-", "-", "-", "-"]);
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns() {
        for width in 20..200 {
            assert!(Columns::within(width).head().chars().count() <= width);
        }
        assert_eq!(Columns::within(30).head(), "NAME                    CPU %");
        assert_eq!(Columns::within(200).head(), Columns::all().head());
    }
}
