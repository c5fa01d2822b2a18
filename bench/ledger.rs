//! What a place in the pot network costs while 1, 1,000 and 10,000 pots have one: looking for what is free, and a lease
//! taken and ended.
//!
//!     cargo bench --bench ledger
//!
//! In a directory of the test's own below /dev/shm where there is one, because the ledger is in memory as well (`/run`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use potrun::bundle::pot::Protocol;
use potrun::id::ContainerId;
use potrun::lease::{self, Lease, Port};
use potrun::plan::lease::Subnet;
use potrun::ranges::Ranges;

type Res<T> = Result<T, Box<dyn std::error::Error>>;

/// Rounds of which the median is told.
const ROUNDS: usize = 1000;

fn nth(n: u32) -> Res<Lease> {
    let port = Port { protocol: Protocol::Tcp, port: 1024 + u16::try_from(n)?, host: None };
    let id = ContainerId::new(&format!("pot{n}"))?;
    let address = IpAddr::from(Ipv4Addr::from_bits(0x0ac0_0003 + n));
    Ok(Lease { owner: Path::new("/run/potrun").join(id.as_str()), id, addresses: vec![address], ports: vec![port] })
}

fn median(mut work: impl FnMut() -> Res<()>) -> Res<Duration> {
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(all[ROUNDS / 2])
}

fn main() -> Res<()> {
    let memory = PathBuf::from("/dev/shm");
    let above = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let dir = above.join(format!("potrun-ledger-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = measure(&dir.join("ledger"));
    fs::remove_file(dir.join("ledger"))?;
    fs::remove_dir(&dir)?;
    done
}

fn measure(ledger: &Path) -> Res<()> {
    let subnet = Subnet::parse("10.192.0.0/10").ok_or("no subnet")?;
    println!("{:>8} {:>14} {:>14} {:>14}", "leases", "free [µs]", "take+end [µs]", "fragmented [µs]");
    let mut there = 0;
    for count in [1, 1_000, 10_000] {
        for n in there..count {
            lease::take(ledger, &nth(n)?)?;
        }
        there = count;
        let free = || {
            let leased = lease::leased(ledger, &[], &[])?;
            let address = subnet.lowest_free(&leased.addresses, &Ranges::default()).ok_or("full")?;
            let port = leased.free_port(Protocol::Tcp, 1024).ok_or("full")?;
            std::hint::black_box((address, port));
            Ok(())
        };
        let looked = median(free)?;
        let one = nth(20_000)?;
        let taken = median(|| {
            lease::take(ledger, &one)?;
            Ok(lease::end(ledger, &one.id, &one.owner)?)
        })?;
        // Every second pot has gone: as many runs as there can be.
        for n in (1..count).step_by(2) {
            let gone = nth(n)?;
            lease::end(ledger, &gone.id, &gone.owner)?;
        }
        let fragmented = median(free)?;
        for n in (1..count).step_by(2) {
            lease::take(ledger, &nth(n)?)?;
        }
        let us = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
        println!("{count:>8} {:>14} {:>14} {:>14}", us(looked), us(taken), us(fragmented));
    }
    Ok(())
}
