/// One instruction of classic BPF, laid out as the kernel's `struct sock_filter`: an array of them is what
/// seccomp(2) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Class, mode, size and operation.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// The operand: a constant, an offset or a distance.
    pub k: u32,
}
