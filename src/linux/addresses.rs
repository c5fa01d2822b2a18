//! Holds the sockets of a control group to a pot's addresses: eBPF programs of its hooks.
//!
//! Pure: no IO, no kernel. What they do is what a jail with `ip4.addr` does (FreeBSD, sys/kern/kern_jail.c, prison_ip and
//! `prison_local_ip4`): a socket that is bound to no address, or to a loopback one, is bound to the pot's first; what is
//! sent to a loopback address goes to the pot's first; any other address that is not the pot's is refused with EPERM. A
//! jail with several addresses listens on all of them by 0.0.0.0; here that is the first alone.
//!
//! What no hook of a socket sees (listen(2) without bind(2) takes any address of the host) is caught when it answers: no
//! packet of the group leaves from another address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bpf::{BpfInsn, Hook, insn};

// Opcodes: linux/bpf.h and linux/bpf_common.h. JMP32 is of Linux 5.1.
const LDX_W: u8 = 0x61;
const LDX_DW: u8 = 0x79;
const STX_W: u8 = 0x63;
const MOV_X: u8 = 0xbf;
const MOV_K: u8 = 0xb7;
const MOV32_K: u8 = 0xb4;
const MOV32_X: u8 = 0xbc;
const ADD_K: u8 = 0x07;
const AND32_K: u8 = 0x54;
const JEQ32_K: u8 = 0x16;
const JNE32_K: u8 = 0x56;
const JEQ_K: u8 = 0x15;
const JA: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

// Helpers: `__BPF_FUNC_MAPPER` of linux/bpf.h.
const SKB_LOAD_BYTES: i32 = 26;
const BIND: i32 = 64;

// Offsets in `struct bpf_sock_addr`.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const SOURCE_IP4: i16 = 40;
const SOURCE_IP6: i16 = 44;
const SOCKET: i16 = 64;
// In `struct bpf_sock`.
const BOUND_IP4: i16 = 24;
const BOUND_IP6: i16 = 28;
// In `struct __sk_buff`.
const PROTOCOL: i16 = 16;

const RESULT: u8 = 0;
const CONTEXT: u8 = 6; // kept by calls
const FRAME: u8 = 10;
/// The four words of an address, or the first alone.
const WORDS: [u8; 4] = [2, 3, 4, 5];
const SCRATCH: u8 = 0;

/// Where a jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label(usize);

/// A program in the making.
#[derive(Default)]
struct Code {
    insns: Vec<BpfInsn>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<Option<usize>>,
}

impl Code {
    fn new() -> Self {
        let mut code = Self::default();
        code.put(MOV_X, CONTEXT, 1, 0, 0);
        code
    }

    fn put(&mut self, op: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.insns.push(insn(op, dst, src, off, imm));
    }

    fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    fn here(&mut self, label: Label) {
        self.labels[label.0] = Some(self.insns.len());
    }

    fn jump(&mut self, op: u8, dst: u8, imm: i32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.put(op, dst, 0, 0, imm);
    }

    fn verdict(&mut self, allow: bool) {
        self.put(MOV_K, RESULT, 0, 0, i32::from(allow));
        self.put(EXIT, 0, 0, 0, 0);
    }

    /// The program, its jumps resolved. It falls out into a denial.
    fn finish(mut self) -> Vec<BpfInsn> {
        self.verdict(false);
        for (at, label) in &self.jumps {
            if let Some(target) = self.labels[label.0] {
                self.insns[*at].off = (target as i64 - *at as i64 - 1) as i16; // programs are short
            }
        }
        reachable(&self.insns)
    }

    fn load(&mut self, words: usize, base: u8, offset: i16) {
        for (n, word) in WORDS.iter().enumerate().take(words) {
            self.put(LDX_W, *word, base, offset + 4 * n as i16, 0);
        }
    }

    fn store(&mut self, address: &[i32], base: u8, offset: i16) {
        for (n, word) in address.iter().enumerate() {
            self.put(MOV32_K, SCRATCH, 0, 0, *word);
            self.put(STX_W, base, SCRATCH, offset + 4 * n as i16, 0);
        }
    }

    /// Goes to `to` if the loaded address is this one.
    fn equal(&mut self, address: &[i32], to: Label) {
        let next = self.label();
        for (n, (word, register)) in address.iter().zip(WORDS).enumerate() {
            if n + 1 == address.len() {
                self.jump(JEQ32_K, register, *word, to);
            } else {
                self.jump(JNE32_K, register, *word, next);
            }
        }
        self.here(next);
    }

    fn among(&mut self, all: &[Vec<i32>], to: Label) {
        all.iter().for_each(|address| self.equal(address, to));
    }

    /// Goes to `to` if the loaded address is that of no host, or a loopback one.
    fn unspecified_or_loopback(&mut self, v4: bool, to: Label) {
        if v4 {
            self.loopback4(WORDS[0], to);
        } else {
            self.equal(&words(Ipv6Addr::UNSPECIFIED.into()), to);
            self.equal(&words(Ipv6Addr::LOCALHOST.into()), to);
        }
    }

    fn loopback4(&mut self, register: u8, to: Label) {
        self.jump(JEQ32_K, register, 0, to);
        self.put(MOV32_X, SCRATCH, register, 0, 0);
        self.put(AND32_K, SCRATCH, 0, 0, i32::from_ne_bytes([0xff, 0, 0, 0]));
        self.jump(JEQ32_K, SCRATCH, i32::from_ne_bytes([127, 0, 0, 0]), to);
    }

    /// Goes to `to` if the loaded IPv6 address stands for an IPv4 one (RFC 4291, section 2.5.5.2).
    fn mapped(&mut self, to: Label) {
        let next = self.label();
        let prefix = words(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into());
        for (word, register) in prefix[..2].iter().zip(WORDS) {
            self.jump(JNE32_K, register, *word, next);
        }
        self.jump(JEQ32_K, WORDS[2], prefix[2], to);
        self.here(next);
    }
}

/// The instructions that are ever come to: the verifier takes no others.
fn reachable(insns: &[BpfInsn]) -> Vec<BpfInsn> {
    let jumps = |insn: &BpfInsn| matches!(insn.code & 0x07, 0x05 | 0x06) && !matches!(insn.code, CALL | EXIT);
    let target = |at: usize| (at as i64 + 1 + i64::from(insns[at].off)) as usize;
    let mut seen = vec![false; insns.len()];
    let mut rest = vec![0];
    while let Some(at) = rest.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        if jumps(&insns[at]) {
            rest.push(target(at));
        }
        if !matches!(insns[at].code, JA | EXIT) {
            rest.push(at + 1);
        }
    }
    let place: Vec<usize> =
        seen.iter().scan(0, |n, seen| Some(std::mem::replace(n, *n + usize::from(*seen)))).collect();
    let kept = insns.iter().enumerate().filter(|(at, _)| seen[*at]);
    let moved = |(at, insn): (usize, &BpfInsn)| match jumps(insn) {
        true => BpfInsn { off: (place[target(at)] as i64 - place[at] as i64 - 1) as i16, ..*insn },
        false => *insn,
    };
    kept.map(moved).collect()
}

/// The words of an address as the kernel has them in memory.
fn words(address: IpAddr) -> Vec<i32> {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    octets.chunks_exact(4).map(|four| i32::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// The pot's addresses, in words.
struct Own {
    v4: Vec<Vec<i32>>,
    v6: Vec<Vec<i32>>,
    mapped: Vec<Vec<i32>>,
}

/// The programs that hold sockets to `addresses`, each with its hook.
#[must_use]
pub fn programs(addresses: &[IpAddr]) -> Vec<(Hook, Vec<BpfInsn>)> {
    let mut own = Own { v4: Vec::new(), v6: Vec::new(), mapped: Vec::new() };
    for address in addresses {
        match address {
            IpAddr::V4(v4) => {
                own.v4.push(words(*address));
                own.mapped.push(words(v4.to_ipv6_mapped().into()));
            }
            IpAddr::V6(_) => own.v6.push(words(*address)),
        }
    }
    vec![
        (Hook::Bind4, bind(&own.v4, &[])),
        // A server that binds to :: means all it has.
        (Hook::Bind6, bind(if own.v6.is_empty() { &own.mapped } else { &own.v6 }, &own.mapped)),
        (Hook::Connect4, connect(&own, true)),
        (Hook::Connect6, connect(&own, false)),
        (Hook::Send4, send(&own.v4, true)),
        (Hook::Send6, send(&own.v6, false)),
        (Hook::Egress, egress(&own)),
    ]
}

/// bind(2): to one of `own` or `more`; what names no host gets the first of `own`.
fn bind(own: &[Vec<i32>], more: &[Vec<i32>]) -> Vec<BpfInsn> {
    let mut code = Code::new();
    let Some(first) = own.first() else { return code.finish() };
    let v4 = first.len() == 1;
    let (allow, replace, mapped) = (code.label(), code.label(), code.label());
    let offset = if v4 { USER_IP4 } else { USER_IP6 };
    code.load(first.len(), CONTEXT, offset);
    code.among(own, allow);
    code.among(more, allow);
    code.unspecified_or_loopback(v4, replace);
    if !more.is_empty() {
        code.mapped(mapped);
    }
    code.verdict(false);
    code.here(replace);
    code.store(first, CONTEXT, offset);
    code.here(allow);
    code.verdict(true);
    code.here(mapped);
    if let Some(first) = more.first() {
        let loopback = code.label();
        code.loopback4(WORDS[3], loopback);
        code.verdict(false);
        code.here(loopback);
        code.store(first, CONTEXT, offset);
        code.verdict(true);
    }
    code.finish()
}

/// connect(2): from one of the pot's own addresses.
fn connect(own: &Own, v4: bool) -> Vec<BpfInsn> {
    let mut code = Code::new();
    let all = if v4 { &own.v4 } else { &own.v6 };
    let (count, offset) = if v4 { (1, USER_IP4) } else { (4, USER_IP6) };
    code.load(count, CONTEXT, offset);
    let mapped = code.label();
    if !v4 && !own.mapped.is_empty() {
        code.mapped(mapped);
    }
    toward(&mut code, all, v4, offset);
    from(&mut code, all);
    code.verdict(false);
    code.here(mapped);
    if !v4 && let Some(first) = own.mapped.first() {
        let (replace, go) = (code.label(), code.label());
        code.loopback4(WORDS[3], replace);
        code.jump(JA, 0, 0, go);
        code.here(replace);
        code.store(first, CONTEXT, offset);
        code.here(go);
        from(&mut code, &own.mapped);
    }
    code.finish()
}

/// What is sent to the loopback address goes to the pot's own.
fn toward(code: &mut Code, own: &[Vec<i32>], v4: bool, offset: i16) {
    let Some(first) = own.first() else { return };
    let (replace, go) = (code.label(), code.label());
    code.unspecified_or_loopback(v4, replace);
    code.jump(JA, 0, 0, go);
    code.here(replace);
    code.store(first, CONTEXT, offset);
    code.here(go);
}

/// Allows a socket that is bound to one of `own`, and binds one that is bound to none. Falls out where it cannot be.
fn from(code: &mut Code, own: &[Vec<i32>]) {
    let Some(first) = own.first() else { return };
    let v4 = first.len() == 1;
    let (allow, deny, bind) = (code.label(), code.label(), code.label());
    let none = vec![0; first.len()];
    for again in [false, true] {
        code.put(LDX_DW, 1, CONTEXT, SOCKET, 0);
        code.jump(JEQ_K, 1, 0, deny);
        code.load(first.len(), 1, if v4 { BOUND_IP4 } else { BOUND_IP6 });
        code.among(own, allow);
        if again {
            code.jump(JA, 0, 0, deny);
            break;
        }
        code.equal(&none, bind);
        code.jump(JA, 0, 0, deny);
        code.here(bind);
        // struct sockaddr_in, struct sockaddr_in6: family and port, for IPv6 the flow, the address, the rest.
        let family: u16 = if v4 { 2 } else { 10 }; // AF_INET, AF_INET6 of Linux
        let [low, high] = family.to_ne_bytes();
        let mut sockaddr = vec![i32::from_ne_bytes([low, high, 0, 0])];
        sockaddr.extend((!v4).then_some(0));
        sockaddr.extend(first);
        sockaddr.extend(if v4 { vec![0, 0] } else { vec![0] });
        let size: i16 = if v4 { 16 } else { 28 };
        let place: i16 = if v4 { -16 } else { -32 };
        code.store(&sockaddr, FRAME, place);
        code.put(MOV_X, 1, CONTEXT, 0, 0);
        code.put(MOV_X, 2, FRAME, 0, 0);
        code.put(ADD_K, 2, 0, 0, place.into());
        code.put(MOV_K, 3, 0, 0, size.into());
        code.put(CALL, 0, 0, 0, BIND);
        // Whether that worked is seen at the socket.
    }
    code.here(allow);
    code.verdict(true);
    code.here(deny);
}

/// sendto(2) of a socket that is not connected.
fn send(own: &[Vec<i32>], v4: bool) -> Vec<BpfInsn> {
    let mut code = Code::new();
    let Some(first) = own.first() else { return code.finish() };
    let (offset, source) = if v4 { (USER_IP4, SOURCE_IP4) } else { (USER_IP6, SOURCE_IP6) };
    let (allow, replace) = (code.label(), code.label());
    code.load(first.len(), CONTEXT, offset);
    toward(&mut code, own, v4, offset);
    code.load(first.len(), CONTEXT, source);
    code.among(own, allow);
    code.equal(&vec![0; first.len()], replace);
    code.verdict(false);
    code.here(replace);
    code.store(first, CONTEXT, source);
    code.here(allow);
    code.verdict(true);
    code.finish()
}

/// A packet of IP that leaves: from one of the pot's own addresses.
fn egress(own: &Own) -> Vec<BpfInsn> {
    let mut code = Code::new();
    let allow = code.label();
    // ETH_P_IP and ETH_P_IPV6 of linux/if_ether.h; saddr of struct iphdr and struct ipv6hdr.
    for (all, protocol, offset) in [(&own.v4, 0x0800_u16, 12), (&own.v6, 0x86dd, 8)] {
        let Some(first) = all.first() else { continue };
        let next = code.label();
        code.put(LDX_W, SCRATCH, CONTEXT, PROTOCOL, 0);
        code.jump(JNE32_K, SCRATCH, protocol.to_be().into(), next);
        let size = 4 * first.len() as i16;
        code.put(MOV_X, 1, CONTEXT, 0, 0);
        code.put(MOV_K, 2, 0, 0, offset);
        code.put(MOV_X, 3, FRAME, 0, 0);
        code.put(ADD_K, 3, 0, 0, -16);
        code.put(MOV_K, 4, 0, 0, size.into());
        code.put(CALL, 0, 0, 0, SKB_LOAD_BYTES);
        let failed = code.label();
        code.jump(JNE32_K, RESULT, 0, failed);
        code.load(first.len(), FRAME, -16);
        code.among(all, allow);
        code.here(failed);
        code.verdict(false);
        code.here(next);
    }
    code.verdict(false);
    code.here(allow);
    code.verdict(true);
    code.finish()
}
