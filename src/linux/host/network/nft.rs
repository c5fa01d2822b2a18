//! The nftables table `potrun` in the kernel: nf_tables by netlink (linux/netfilter/nf_tables.h), each change one
//! transaction. nft(8) is not started: it alone would take longer than all else that a pot's network needs.

use std::io;
use std::net::IpAddr;

use crate::bundle::pot::Protocol;
use crate::linux::nft::{CHAINS, Chain, Element, End, SETS, Set, TABLE, Type, Value, Word};
use crate::op::Family;
use crate::plan::network::BRIDGES;

use super::super::netlink::{Message, Socket, attribute};

// Attributes of linux/netfilter/nf_tables.h: each list counts from 1.
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// The first of the 32-bit registers.
const REGISTER: u32 = libc::NFT_REG32_00 as u32;

/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h).
const DST_NAT: u32 = 1 << 5;

/// What is written to the table so that it is known as ours, in the form in which nft(8) keeps a comment: type, length,
/// text (libnftnl's `NFTNL_UDATA_TABLE_COMMENT`, `NFTNL_UDATA_SET_ELEM_COMMENT`: both 0).
fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![0, (text.len() + 1) as u8]; // names of pots are short: plan::network::rule_name
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

/// A message of nf_tables for the family inet.
fn message(kind: i32, flags: i32) -> Message {
    let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
    Message::new(kind, flags, &[libc::NFPROTO_INET as u8, libc::NFNETLINK_V0 as u8, 0, 0])
}

/// Whether there is a table of that name. It may be somebody else's.
fn find(socket: &mut Socket) -> io::Result<bool> {
    let Some(answer) = socket.get(message(libc::NFT_MSG_GETTABLE, 0).text(TABLE_NAME, TABLE))? else {
        return Ok(false);
    };
    // Behind `struct nfgenmsg`.
    let ours = attribute(&answer.body[4..], TABLE_USERDATA) == Some(&comment(TABLE));
    if ours { Ok(true) } else { Err(io::Error::other(format!("there is a table {TABLE} of somebody else"))) }
}

/// Makes the table if it is not there, and adds a bridge to it.
pub(in super::super) fn ensure(bridge: &str) -> io::Result<()> {
    let mut socket = Socket::netfilter()?;
    let mut all = if find(&mut socket)? { Vec::new() } else { table() };
    all.push(add(&Element::Bridge { name: bridge.into() }, "", 0));
    socket.transact(all)
}

/// Tells how `work` went before its socket is closed: that waits until the kernel has thrown away what was removed
/// (`nft_rcv_nl_event`, 10 ms).
fn telling(tell: &mut dyn FnMut(io::Result<()>), work: impl FnOnce(&mut Socket) -> io::Result<()>) {
    match Socket::netfilter() {
        Ok(mut socket) => tell(work(&mut socket)),
        Err(e) => tell(Err(e)),
    }
}

/// Takes a bridge out that is gone; `last`: the table with it.
pub(super) fn release(bridge: &str, gone: bool, last: bool, tell: &mut dyn FnMut(io::Result<()>)) {
    telling(tell, |socket| {
        if !find(socket).unwrap_or(false) {
            return Ok(());
        }
        if last {
            return absent(socket.transact(vec![message(libc::NFT_MSG_DELTABLE, 0).text(TABLE_NAME, TABLE)]));
        }
        if gone {
            return absent(socket.transact(vec![remove(&Element::Bridge { name: bridge.into() })]));
        }
        Ok(())
    });
}

/// Adds what a pot has. Its lease makes it the pot's: what is in the way is of one whose owner is gone.
pub(in super::super) fn load(name: &str, elements: &[Element]) -> io::Result<()> {
    let mut socket = Socket::netfilter()?;
    let new = || elements.iter().map(|one| add(one, name, libc::NLM_F_EXCL));
    match socket.transact(new().collect()) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            each(&mut socket, elements)?;
            socket.transact(new().collect())
        }
        other => other,
    }
}

/// Takes out what a pot has.
pub(super) fn flush(elements: &[Element], tell: &mut dyn FnMut(io::Result<()>)) {
    telling(tell, |socket| match socket.transact(elements.iter().map(remove).collect()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => each(socket, elements),
        other => other,
    });
}

/// Removes each element that is there.
fn each(socket: &mut Socket, elements: &[Element]) -> io::Result<()> {
    elements.iter().try_for_each(|one| absent(socket.transact(vec![remove(one)])))
}

/// What is gone already is no failure.
fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn add(element: &Element, name: &str, flags: i32) -> Message {
    let value = element.value();
    elements(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE | flags, element, |mut message| {
        if !value.is_empty() {
            message = message.nest(ELEMENT_DATA, |data| data.put(DATA_VALUE, &bytes(&value)));
        }
        if name.is_empty() { message } else { message.put(ELEMENT_USERDATA, &comment(name)) }
    })
}

fn remove(element: &Element) -> Message {
    elements(libc::NFT_MSG_DELSETELEM, 0, element, |message| message)
}

fn elements(kind: i32, flags: i32, element: &Element, more: impl FnOnce(Message) -> Message) -> Message {
    let key = bytes(&element.key());
    let named = message(kind, flags).text(ELEMENTS_TABLE, TABLE).text(ELEMENTS_SET, element.set().name());
    named.nest(ELEMENTS, |list| {
        list.nest(LIST_ELEMENT, |one| more(one.nest(ELEMENT_KEY, |data| data.put(DATA_VALUE, &key))))
    })
}

/// A concatenation: each value fills whole registers of 32 bits.
fn bytes(values: &[Value]) -> Vec<u8> {
    let mut all = Vec::new();
    for value in values {
        match value {
            Value::Address(IpAddr::V4(address)) => all.extend(address.octets()),
            Value::Address(IpAddr::V6(address)) => all.extend(address.octets()),
            Value::Protocol(protocol) => all.push(number(*protocol)),
            Value::Port(port) => all.extend(port.to_be_bytes()),
            Value::Interface(name) => {
                all.extend(name.as_bytes());
                all.resize(all.len().next_multiple_of(libc::IFNAMSIZ), 0);
            }
        }
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP as u8,
        Protocol::Udp => libc::IPPROTO_UDP as u8,
    }
}

/// Number of a type in nft(8) (`enum datatypes`, nftables' include/datatype.h), for its listing; length in registers.
fn kind(one: Type) -> (u32, u32) {
    match one {
        Type::Ipv4 => (7, 4),
        Type::Ipv6 => (8, 16),
        Type::Protocol => (12, 4),
        Type::Port => (13, 4),
        Type::Interface => (41, 16),
    }
}

/// Number and length of a concatenation: six bits a type (`TYPE_BITS`).
fn kinds(all: &[Type]) -> (u32, u32) {
    all.iter().map(|one| kind(*one)).fold((0, 0), |(types, length), (one, bytes)| (types << 6 | one, length + bytes))
}

/// The messages that make the table, its sets, its chains and their rules.
fn table() -> Vec<Message> {
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let named = message(libc::NFT_MSG_NEWTABLE, create).text(TABLE_NAME, TABLE);
    let mut all = vec![named.put(TABLE_USERDATA, &comment(TABLE))];
    for (n, set) in SETS.iter().enumerate() {
        let (types, length) = kinds(set.key());
        let message = message(libc::NFT_MSG_NEWSET, create).text(SET_TABLE, TABLE).text(SET_NAME, set.name());
        let message = match set.value() {
            [] => message.big(SET_FLAGS, 0),
            value => {
                let (types, length) = kinds(value);
                message.big(SET_FLAGS, libc::NFT_SET_MAP as u32).big(SET_DATA_TYPE, types).big(SET_DATA_LENGTH, length)
            }
        };
        all.push(message.big(SET_KEY_TYPE, types).big(SET_KEY_LENGTH, length).big(SET_ID, n as u32 + 1));
    }
    for Chain { name, kind, hook: (_, hook), priority, rules } in CHAINS {
        all.push(
            message(libc::NFT_MSG_NEWCHAIN, create)
                .text(CHAIN_TABLE, TABLE)
                .text(CHAIN_NAME, name)
                .nest(CHAIN_HOOK, |at| at.big(HOOK_NUMBER, *hook).big(HOOK_PRIORITY, priority.cast_unsigned()))
                .text(CHAIN_TYPE, kind),
        );
        for rule in *rules {
            let named = message(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND)
                .text(RULE_TABLE, TABLE)
                .text(RULE_CHAIN, name);
            all.push(named.nest(RULE_EXPRESSIONS, |list| Rule { list, family: None }.words(rule)));
        }
    }
    all
}

/// A rule in the making.
struct Rule {
    list: Message,
    /// What it has asked the packet's family to be.
    family: Option<Family>,
}

impl Rule {
    fn words(mut self, words: &[Word]) -> Message {
        for word in words {
            self = self.word(*word);
        }
        self.list
    }

    fn expression(mut self, name: &str, data: impl FnOnce(Message) -> Message) -> Self {
        self.list = self.list.nest(LIST_ELEMENT, |one| one.text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, data));
        self
    }

    fn meta(self, key: i32, register: u32) -> Self {
        self.expression("meta", |data| data.big(1, register).big(2, key as u32)) // NFTA_META_DREG, _KEY
    }

    /// `base`: NFT_PAYLOAD_*_HEADER; bytes of the header into a register.
    fn payload(self, base: i32, offset: u32, length: u32, register: u32) -> Self {
        // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
        self.expression("payload", |data| data.big(1, register).big(2, base as u32).big(3, offset).big(4, length))
    }

    fn compare(self, equal: bool, value: &[u8]) -> Self {
        let op = if equal { libc::NFT_CMP_EQ } else { libc::NFT_CMP_NEQ } as u32;
        // NFTA_CMP_SREG, _OP, _DATA
        self.expression("cmp", |data| data.big(1, REGISTER).big(2, op).nest(3, |data| data.put(DATA_VALUE, value)))
    }

    /// `to`: where the value of a map goes; `not`: NFT_LOOKUP_F_INV.
    fn lookup(self, set: Set, to: Option<u32>, not: bool) -> Self {
        self.expression("lookup", |data| {
            let data = data.text(1, set.name()).big(2, REGISTER); // NFTA_LOOKUP_SET, _SREG
            let data = if let Some(register) = to { data.big(3, register) } else { data }; // _DREG
            if not { data.big(5, 1) } else { data } // _FLAGS
        })
    }

    fn of(mut self, family: Family) -> Self {
        if self.family == Some(family) {
            return self;
        }
        self.family = Some(family);
        self.meta(libc::NFT_META_NFPROTO, REGISTER).compare(true, &[family_number(family) as u8])
    }

    /// Loads an address of the packet: `struct iphdr`, `struct ipv6hdr`.
    fn address(self, end: End, family: Family, register: u32) -> Self {
        let (offset, length) = match (family, end) {
            (Family::Ipv4, End::From) => (12, 4),
            (Family::Ipv4, End::To) => (16, 4),
            (Family::Ipv6, End::From) => (8, 16),
            (Family::Ipv6, End::To) => (24, 16),
        };
        self.of(family).payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register)
    }

    fn word(self, word: Word) -> Self {
        let interface = |end: End| if end == End::From { libc::NFT_META_IIFNAME } else { libc::NFT_META_OIFNAME };
        match word {
            Word::Bridge(end, yes) => self.meta(interface(end), REGISTER).compare(yes, BRIDGES.as_bytes()),
            Word::OtherBridge => self
                .meta(interface(End::From), REGISTER)
                .meta(interface(End::To), REGISTER + 4)
                .lookup(Set::Bridges, None, true),
            Word::Of(family) => self.of(family),
            Word::Loopback(end, yes) => {
                let offset = if end == End::From { 12 } else { 16 };
                let rule = self.of(Family::Ipv4);
                rule.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, 1, REGISTER).compare(yes, &[127])
            }
            Word::NotLoopback6 => {
                let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
                self.address(End::To, Family::Ipv6, REGISTER).compare(false, &loopback)
            }
            Word::Local => {
                // NFTA_FIB_DREG, _RESULT: NFT_FIB_RESULT_ADDRTYPE, _FLAGS: NFTA_FIB_F_DADDR
                let rule = self.expression("fib", |data| data.big(1, REGISTER).big(2, 3).big(3, 1 << 1));
                rule.compare(true, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
            }
            Word::Among(end, set) => self.address(end, family_of(set), REGISTER).lookup(set, None, false),
            Word::Translated(yes) => {
                let status = libc::NFT_CT_STATUS as u32;
                let rule = self.expression("ct", |data| data.big(1, REGISTER).big(2, status)); // NFTA_CT_DREG, _KEY
                let (mask, none) = (DST_NAT.to_ne_bytes(), [0; 4]);
                // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR
                let rule = rule.expression("bitwise", |data| {
                    let data = data.big(1, REGISTER).big(2, REGISTER).big(3, 4);
                    data.nest(4, |data| data.put(DATA_VALUE, &mask)).nest(5, |data| data.put(DATA_VALUE, &none))
                });
                // As nft(8) writes `ct status dnat` and `ct status & dnat != dnat`.
                rule.compare(false, if yes { &none } else { &mask })
            }
            Word::Dnat(set) => self.dnat(set),
            Word::Masquerade => self.expression("masq", |data| data),
            Word::Drop => self.expression("immediate", |data| {
                // NFTA_IMMEDIATE_DREG: NFT_REG_VERDICT, _DATA; NF_DROP is 0
                data.big(1, 0).nest(2, |data| data.nest(DATA_VERDICT, |verdict| verdict.big(VERDICT_CODE, 0)))
            }),
        }
    }

    fn dnat(mut self, set: Set) -> Self {
        let family = family_of(set);
        let mut register = REGISTER;
        let width = |family: Family| if family == Family::Ipv4 { 1 } else { 4 };
        if set.key().len() == 3 {
            self = self.address(End::To, family, register);
            register += width(family);
        }
        let rule = self
            .meta(libc::NFT_META_L4PROTO, register)
            .payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register + 1) // the port it goes to, of TCP and UDP
            .lookup(set, Some(REGISTER), false);
        // NFTA_NAT_TYPE, _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN
        rule.expression("nat", |data| {
            let data = data.big(1, libc::NFT_NAT_DNAT as u32).big(2, family_number(family));
            data.big(3, REGISTER).big(5, REGISTER + width(family))
        })
    }
}

fn family_of(set: Set) -> Family {
    let v6 = set.key().contains(&Type::Ipv6) || set.value().contains(&Type::Ipv6);
    if v6 { Family::Ipv6 } else { Family::Ipv4 }
}

fn family_number(family: Family) -> u32 {
    match family {
        Family::Ipv4 => libc::NFPROTO_IPV4 as u32,
        Family::Ipv6 => libc::NFPROTO_IPV6 as u32,
    }
}
