//! eBPF as the kernel takes it: instructions, and the hooks of a control group.

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfInsn {
    /// What to do.
    pub code: u8,
    /// Destination in the low half, source in the high one.
    pub regs: u8,
    /// Where in memory, or how far to jump.
    pub off: i16,
    /// The constant.
    pub imm: i32,
}

/// One instruction.
#[must_use]
pub const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> BpfInsn {
    // C puts the first bit field of a byte into the low bits on a little-endian machine, into the high ones elsewhere.
    let regs = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    BpfInsn { code, regs, off, imm }
}

/// What a control group asks a program about.
#[allow(missing_docs)] // `enum bpf_attach_type` of linux/bpf.h
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Egress,
    Device,
    Bind4,
    Bind6,
    Connect4,
    Connect6,
    Send4,
    Send6,
}

impl Hook {
    /// Its number (`enum bpf_attach_type`) and that of its programs' type (`enum bpf_prog_type`).
    #[must_use]
    pub fn numbers(self) -> (u32, u32) {
        const SKB: u32 = 8; // BPF_PROG_TYPE_CGROUP_SKB
        const DEVICE: u32 = 15; // BPF_PROG_TYPE_CGROUP_DEVICE
        const ADDRESS: u32 = 18; // BPF_PROG_TYPE_CGROUP_SOCK_ADDR
        match self {
            Self::Egress => (1, SKB),
            Self::Device => (6, DEVICE),
            Self::Bind4 => (8, ADDRESS),
            Self::Bind6 => (9, ADDRESS),
            Self::Connect4 => (10, ADDRESS),
            Self::Connect6 => (11, ADDRESS),
            Self::Send4 => (14, ADDRESS),
            Self::Send6 => (15, ADDRESS),
        }
    }
}
