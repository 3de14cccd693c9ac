use longshore_linux::SockFilter;

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K

/// A place in the program, known before its address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Where a branch goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    /// To the instruction after it.
    Next,
    Label(Label),
}

#[derive(Debug)]
enum Item {
    Plain {
        code: u16,
        k: u32,
    },
    /// `far` tells which way needs a jump of its own, because the distance does not fit into a byte.
    Branch {
        code: u16,
        k: u32,
        yes: To,
        no: To,
        far: [bool; 2],
    },
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Plain { .. } => 1,
            Self::Branch { far, .. } => 1 + usize::from(far[0]) + usize::from(far[1]),
        }
    }
}

/// Writes a program whose branches go forward to labels.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    items: Vec<Item>,
    /// The item that each label stands before.
    labels: Vec<Option<usize>>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.items.len());
    }

    pub(super) fn plain(&mut self, code: u16, k: u32) {
        self.items.push(Item::Plain { code, k });
    }

    pub(super) fn branch(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.items.push(Item::Branch {
            code,
            k,
            yes,
            no,
            far: [false; 2],
        });
    }

    /// Resolves the labels. Making a branch longer can push another's target out of reach, so this repeats until nothing moves.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        loop {
            let starts = self.starts();
            let mut moved = false;
            for n in 0..self.items.len() {
                let labels = &self.labels;
                let Item::Branch { yes, no, far, .. } = &mut self.items[n] else {
                    continue;
                };
                for (way, to) in [*yes, *no].into_iter().enumerate() {
                    if !far[way] && distance(labels, &starts, n, to) > usize::from(u8::MAX) {
                        far[way] = true;
                        moved = true;
                    }
                }
            }
            if !moved {
                return self.emit(&starts);
            }
        }
    }

    fn starts(&self) -> Vec<usize> {
        let mut at = 0;
        let mut starts = Vec::with_capacity(self.items.len() + 1);
        for item in &self.items {
            starts.push(at);
            at += item.len();
        }
        starts.push(at);
        starts
    }

    fn emit(&self, starts: &[usize]) -> Vec<SockFilter> {
        let mut program = Vec::with_capacity(starts[self.items.len()]);
        for (n, item) in self.items.iter().enumerate() {
            match *item {
                Item::Plain { code, k } => program.push(SockFilter { code, jt: 0, jf: 0, k }),
                Item::Branch { code, k, yes, no, far } => {
                    let distances = [yes, no].map(|to| distance(&self.labels, starts, n, to));
                    let near = |way: usize, jump: usize| if far[way] { jump } else { distances[way] };
                    let byte = |d: usize| u8::try_from(d).expect("far branches have jumps of their own");
                    let (jt, jf) = (byte(near(0, 0)), byte(near(1, usize::from(far[0]))));
                    program.push(SockFilter { code, jt, jf, k });
                    let mut skipped = 0;
                    for way in 0..2 {
                        if far[way] {
                            skipped += 1;
                            let k = u32::try_from(distances[way] - skipped).expect("programs are short");
                            program.push(SockFilter {
                                code: JUMP,
                                jt: 0,
                                jf: 0,
                                k,
                            });
                        }
                    }
                }
            }
        }
        program
    }
}

/// How many instructions are between the branch itself, item `n`, and its target.
fn distance(labels: &[Option<usize>], starts: &[usize], n: usize, to: To) -> usize {
    let target = match to {
        To::Next => starts[n + 1],
        To::Label(label) => starts[labels[label.0].expect("every label is bound")],
    };
    target - (starts[n] + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_reach_any_distance() {
        for gap in [0, 1, 254, 255, 256, 1000] {
            for way in 0..2 {
                let mut asm = Assembler::default();
                let far = asm.label();
                let (yes, no) = if way == 0 {
                    (To::Label(far), To::Next)
                } else {
                    (To::Next, To::Label(far))
                };
                asm.branch(JUMP_EQ, 7, yes, no);
                for _ in 0..gap {
                    asm.plain(RETURN, 1);
                }
                asm.bind(far);
                asm.plain(RETURN, 2);
                let program = asm.finish();
                // Follow the way by hand.
                let first = program[0];
                let mut at = 1 + usize::from(if way == 0 { first.jt } else { first.jf });
                while program[at].code == JUMP {
                    at += 1 + program[at].k as usize;
                }
                assert_eq!(program[at].k, 2, "gap {gap} way {way}");
                let other = 1 + usize::from(if way == 0 { first.jf } else { first.jt });
                assert_eq!(program[other].k, if gap == 0 { 2 } else { 1 }, "gap {gap} way {way}");
            }
        }
    }
}
