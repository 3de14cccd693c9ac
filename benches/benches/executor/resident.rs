//! Lives inside a program that has much in memory against one that has little.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mm::{Advice, madvise};

use crate::alive::{Host, runtime};
use crate::bundle::Bundle;
use crate::pairs::Table;

const MEBIBYTE: usize = 1 << 20;
const PAGE: usize = 4096;

/// A program with memory, which does a life for each line it is given and answers with the nanoseconds.
#[derive(Debug)]
struct Program {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(bundle: &Bundle, mebibytes: usize) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .arg("resident")
            .arg(bundle.short())
            .arg(mebibytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, orders, answers }
    }

    fn life(&mut self) -> Duration {
        writeln!(self.orders).expect("it reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        Duration::from_nanos(line.trim().parse().expect("a number"))
    }

    fn end(self) {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        child.wait().expect("it ends");
    }
}

pub(crate) fn compare(table: &mut Table, bundle: &Bundle) {
    let mut large = Program::start(bundle, 1024);
    let mut small = Program::start(bundle, 10);
    table.durations(
        "in process, 1 GiB resident / 10 MiB",
        "<= 1.2",
        || large.life(),
        || small.life(),
    );
    large.end();
    small.end();
}

/// The program itself.
pub(crate) fn serve(short: &Path, mebibytes: usize) {
    let memory = resident(mebibytes * MEBIBYTE);
    let host = Host::new(short, &format!("resident-{mebibytes}"));
    let runtime = runtime();
    for _ in std::io::stdin().lines() {
        let start = Instant::now();
        runtime.block_on(host.one_life());
        println!("{}", start.elapsed().as_nanos());
    }
    drop(memory);
}

/// Memory that is there, in pages of 4 KiB: the dearest to copy the tables of.
fn resident(size: usize) -> Vec<u8> {
    let mut memory = Vec::<u8>::with_capacity(size + PAGE);
    let start = memory.as_mut_ptr().map_addr(|at| at.next_multiple_of(PAGE));
    // SAFETY: the advice changes nothing that can be seen of the memory, which is this vector's.
    unsafe { madvise(start.cast(), size, Advice::LinuxNoHugepage) }.expect("it is our memory");
    memory.resize(size, 1);
    memory
}
