//! `top`: what running containers use, over and over.

mod table;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use longshore::metrics::{Flow, Sampler, Usage};
use longshore::runtime::{ContainerId, Executor};
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use crate::open::Site;
use crate::output::{say, write};
use crate::terminal::Signals;

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Show it once, as is done where standard output is no terminal
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// How: a table, or an object in each line
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub(crate) format: Form,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Cpu, value_name = "COLUMN")]
    pub(crate) sort: Sort,
    /// The time between two looks; rates are of this time
    #[arg(short, long, default_value_t = 1.0, value_name = "SECONDS")]
    pub(crate) interval: f64,
    /// Only these containers
    pub(crate) containers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Name,
    Cpu,
    Memory,
    Pids,
    Io,
    Network,
}

/// What was asked about.
type Rows = Vec<(ContainerId, Usage)>;

pub(crate) async fn top(site: &Site, top: Top) -> Result<u8> {
    let named = top.containers.iter().map(ContainerId::new);
    let watch = Watch {
        named: named.collect::<Result<_, _>>()?,
        sort: top.sort,
    };
    let (executor, mut sampler) = (site.executor()?, Sampler::new());
    watch.known(&*executor).await?;
    let interval = match Duration::try_from_secs_f64(top.interval) {
        Ok(interval) if !interval.is_zero() => interval,
        _ => bail!("'{}' is no interval; write seconds, e.g. 0.5", top.interval),
    };
    // Rates need two samples.
    sampler.sample(&*executor).await?;
    let live = std::io::stdout().is_terminal() && !top.no_stream;
    if !live {
        tokio::time::sleep(interval).await;
        print(top.format, &watch.rows(&mut sampler, &*executor).await?);
        return Ok(0);
    }
    let signals = Signals::listen()?;
    let _screen = (top.format == Form::Table).then(Page::open);
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = signals.next() => return Ok(0),
        }
        let rows = watch.rows(&mut sampler, &*executor).await?;
        match top.format {
            Form::Table => Page::show(&rows),
            Form::Json => print(top.format, &rows),
        }
    }
}

/// Which containers, and in what order.
struct Watch {
    /// None is all.
    named: Vec<ContainerId>,
    sort: Sort,
}

impl Watch {
    /// A name that is none is told, not passed over.
    async fn known(&self, executor: &dyn Executor) -> Result<()> {
        for id in &self.named {
            executor.state(id).await?;
        }
        Ok(())
    }

    async fn rows(&self, sampler: &mut Sampler, executor: &dyn Executor) -> Result<Rows> {
        Ok(self.choose(sampler.sample(executor).await?))
    }

    fn choose(&self, all: BTreeMap<ContainerId, Usage>) -> Rows {
        let wanted = |id: &ContainerId| self.named.is_empty() || self.named.contains(id);
        let mut rows: Rows = all.into_iter().filter(|(id, _)| wanted(id)).collect();
        // Those that use as much stay in the order of their names.
        let key: fn(&Usage) -> f64 = match self.sort {
            Sort::Name => return rows,
            Sort::Cpu => |usage| usage.cpus.unwrap_or_default(),
            Sort::Memory => |usage| usage.memory.unwrap_or_default() as f64,
            Sort::Pids => |usage| usage.pids.unwrap_or_default() as f64,
            Sort::Io => |usage| rate(usage.read) + rate(usage.written),
            Sort::Network => |usage| rate(usage.received) + rate(usage.sent),
        };
        rows.sort_by(|(_, a), (_, b)| key(b).total_cmp(&key(a)));
        rows
    }
}

fn rate(flow: Option<Flow>) -> f64 {
    flow.and_then(|flow| flow.per_second).unwrap_or_default()
}

fn print(form: Form, rows: &Rows) {
    match form {
        Form::Table => {
            let all = table::Columns::all();
            say!("{}", all.head());
            rows.iter()
                .for_each(|(id, usage)| say!("{}", all.row(id.as_str(), usage)));
        }
        Form::Json => rows.iter().for_each(|(id, usage)| say!("{}", object(id, usage))),
    }
}

/// One container as an object: bytes, processors and parts of the time as plain numbers; what is not known is null.
fn object(id: &ContainerId, usage: &Usage) -> Value {
    let flow = |flow: Option<Flow>| flow.map(|flow| json!({ "total": flow.total, "per_second": flow.per_second }));
    json!({
        "name": id.as_str(),
        "cpus": usage.cpus,
        "memory": { "bytes": usage.memory, "limit": usage.memory_limit },
        "pids": { "number": usage.pids, "limit": usage.pids_limit },
        "io": { "read": flow(usage.read), "written": flow(usage.written) },
        "network": { "received": flow(usage.received), "sent": flow(usage.sent) },
        "stalled": { "cpu": usage.stalled.cpu, "memory": usage.stalled.memory, "io": usage.stalled.io },
    })
}

/// The terminal's other page: what was on it before comes back in the end.
struct Page;

impl Page {
    fn open() -> Self {
        write(format_args!("\x1b[?1049h\x1b[?25l"));
        Self
    }

    /// As much as there is room for.
    fn show(rows: &Rows) {
        let size = tcgetwinsize(std::io::stdout());
        let (lines, width) = size.map_or((24, 80), |size| (size.ws_row.max(2), size.ws_col.max(20)));
        let columns = table::Columns::within(width.into());
        let mut text = format!("\x1b[H\x1b[1m{}\x1b[0m\x1b[K", columns.head());
        for (id, usage) in rows.iter().take(usize::from(lines) - 1) {
            text.push_str("\r\n");
            text.push_str(&columns.row(id.as_str(), usage));
            text.push_str("\x1b[K");
        }
        write(format_args!("{text}\x1b[J"));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        write(format_args!("\x1b[?25h\x1b[?1049l"));
    }
}

#[cfg(test)]
mod tests {
    use longshore::runtime::{CpuStats, MemoryStats, Stats};

    use super::*;

    fn id(name: &str) -> ContainerId {
        ContainerId::new(name).expect("an id")
    }

    fn usage(cpu: u64, memory: u64) -> Usage {
        let mut before = Stats::now();
        before.cpu = Some(CpuStats::default());
        let mut now = before.clone();
        now.at += Duration::from_secs(1);
        now.cpu.get_or_insert_default().total = Duration::from_millis(cpu);
        let mut figures = MemoryStats::default();
        figures.working_set = memory;
        now.memory = Some(figures);
        Usage::of(&now, Some(&before))
    }

    fn order(sort: Sort, named: &[&str]) -> Vec<String> {
        let all = [("a", usage(100, 3)), ("b", usage(900, 1)), ("c", usage(100, 2))];
        let watch = Watch {
            named: named.iter().map(|name| id(name)).collect(),
            sort,
        };
        let rows = watch.choose(all.into_iter().map(|(name, usage)| (id(name), usage)).collect());
        rows.into_iter().map(|(id, _)| id.to_string()).collect()
    }

    #[test]
    fn rows_are_chosen_and_sorted() {
        assert_eq!(order(Sort::Cpu, &[]), ["b", "a", "c"]);
        assert_eq!(order(Sort::Memory, &[]), ["a", "c", "b"]);
        assert_eq!(order(Sort::Name, &["c", "b"]), ["b", "c"]);
    }

    #[test]
    fn objects_have_plain_numbers() {
        let object = object(&id("web"), &usage(500, 7));
        assert_eq!(object["name"], "web");
        assert_eq!(object["cpus"], 0.5);
        assert_eq!(object["memory"], json!({ "bytes": 7, "limit": null }));
        assert_eq!(object["network"]["sent"], Value::Null);
    }
}
