use super::*;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        for name in ["a", "b"] {
            _ = fs::remove_dir(self.0.join(name));
        }
        for name in ["ledger", "ledger.lock"] {
            _ = fs::remove_file(self.0.join(name));
        }
        fs::remove_dir(&self.0).unwrap(); // nothing else is left
    }
}

impl Dir {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("potrun-lease-{}-{n}", std::process::id()));
        for name in ["a", "b"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        Self(dir)
    }

    fn ledger(&self) -> PathBuf {
        self.0.join("ledger")
    }

    fn lease(&self, id: &str, address: &str, ports: &[&str]) -> Lease {
        let addresses = vec![address.parse().unwrap()];
        let ports = ports.iter().map(|text| text.parse().unwrap()).collect();
        Lease { id: ContainerId::new(id).unwrap(), owner: self.0.join(id), addresses, ports }
    }
}

fn free(ledger: &Path) -> Leased {
    leased(ledger, &[], &[]).unwrap()
}

#[test]
fn what_is_taken_is_taken_until_it_ends() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    let _lock = lock(&ledger).unwrap();
    assert_eq!(free(&ledger), Leased::default());
    let a = dir.lease("a", "10.0.0.3", &["tcp/1024"]);
    take(&ledger, &a).unwrap();
    take(&ledger, &a).unwrap(); // once more is the same
    assert_eq!(all(&ledger).unwrap(), std::slice::from_ref(&a));
    for other in [dir.lease("b", "10.0.0.3", &[]), dir.lease("b", "10.0.0.4", &["tcp/1024"])] {
        assert_eq!(take(&ledger, &other).unwrap_err().to_string(), "a has it already");
    }
    // Somebody else of that name has another state directory.
    end(&ledger, &a.id, &dir.0.join("b")).unwrap();
    end(&ledger, &dir.lease("b", "10.0.0.3", &[]).id, &a.owner).unwrap();
    assert!(free(&ledger).addresses.contains(a.addresses[0]));
    end(&ledger, &a.id, &a.owner).unwrap();
    end(&ledger, &a.id, &a.owner).unwrap();
    assert!(free(&ledger).is_empty() && !ledger.exists());
    take(&ledger, &dir.lease("b", "10.0.0.3", &["tcp/1024"])).unwrap();
}

#[test]
fn a_port_is_leased_by_protocol_and_address_of_the_host() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    take(&ledger, &dir.lease("a", "10.0.0.3", &["tcp/53", "udp/192.0.2.1:53", "tcp/[2001:db8::1]:80"])).unwrap();
    for taken in ["tcp/53", "tcp/192.0.2.9:53", "udp/53", "udp/192.0.2.1:53", "tcp/80"] {
        let error = take(&ledger, &dir.lease("b", "10.0.0.4", &[taken])).unwrap_err();
        assert_eq!(error.to_string(), "a has it already", "{taken}");
    }
    take(&ledger, &dir.lease("b", "10.0.0.4", &["udp/192.0.2.2:53", "tcp/192.0.2.1:80", "udp/80"])).unwrap();
    let asked: Vec<Port> = ["udp/53", "tcp/81", "udp/80"].iter().map(|text| text.parse().unwrap()).collect();
    let found = leased(&ledger, &["10.0.0.3".parse().unwrap()], &asked).unwrap();
    let holders: Vec<String> = found.holders.iter().map(|(what, id)| format!("{what} {id}")).collect();
    assert_eq!(holders, ["10.0.0.3 a", "udp/53 b", "udp/80 b"]);
    assert_eq!(found.free_port(Protocol::Tcp, 53), Some(54));
    assert_eq!(found.free_port(Protocol::Udp, 53), Some(54));
    assert_eq!(found.free_port(Protocol::Tcp, 80), Some(81));
}

#[test]
fn a_lease_without_an_owner_is_an_orphan() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    take(&ledger, &dir.lease("a", "10.0.0.3", &[])).unwrap();
    take(&ledger, &dir.lease("b", "10.0.0.4", &[])).unwrap();
    let gone = || orphans(&ledger).unwrap().0;
    assert_eq!(gone(), []);
    fs::remove_dir(dir.0.join("a")).unwrap();
    // Until somebody needs it nobody looks.
    assert!(take(&ledger, &dir.lease("b", "10.0.0.3", &[])).is_err());
    let [lease] = &gone()[..] else { panic!("{:?}", gone()) };
    assert_eq!((lease.id.as_str(), &lease.addresses[..]), ("a", &["10.0.0.3".parse().unwrap()][..]));
    end(&ledger, &lease.id, &lease.owner).unwrap();
    take(&ledger, &dir.lease("b", "10.0.0.3", &[])).unwrap();
    let left: Vec<String> = free(&ledger).addresses.words().collect();
    assert_eq!(left, ["10.0.0.3"], "the second lease of an owner replaces its first");
}

#[test]
fn a_damaged_ledger_is_not_taken_for_an_empty_one() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    for text in ["", "{\n", &format!("{HEAD}0000000002 0000000001\n")] {
        fs::write(&ledger, text).unwrap();
        assert!(leased(&ledger, &[], &[]).unwrap_err().to_string().contains("is damaged"), "{text:?}");
        assert!(take(&ledger, &dir.lease("a", "10.0.0.3", &[])).is_err());
    }
    fs::remove_file(&ledger).unwrap();
    take(&ledger, &dir.lease("a", "10.0.0.3", &[])).unwrap();
    let text = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, text + "+ a\n").unwrap();
    assert!(all(&ledger).unwrap_err().to_string().ends_with("is damaged: + a"));
}

#[test]
fn a_line_that_a_kill_cut_does_not_count() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    take(&ledger, &dir.lease("a", "10.0.0.3", &[])).unwrap();
    let before = fs::read(&ledger).unwrap();
    take(&ledger, &dir.lease("b", "10.0.0.4", &["tcp/80"])).unwrap();
    let after = fs::read(&ledger).unwrap();
    for end in before.len()..after.len() {
        fs::write(&ledger, &after[..end]).unwrap();
        assert_eq!(free(&ledger).addresses.words().collect::<Vec<_>>(), ["10.0.0.3"], "cut at {end}");
        take(&ledger, &dir.lease("b", "10.0.0.5", &[])).unwrap();
        assert_eq!(free(&ledger).addresses.words().collect::<Vec<_>>(), ["10.0.0.3", "10.0.0.5"], "cut at {end}");
        assert_eq!(all(&ledger).unwrap().len(), 2);
    }
}

#[test]
fn an_owner_that_ends_like_another_is_another() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    let mut one = dir.lease("a", "10.0.0.3", &[]);
    one.owner = "/x /run/a".into();
    let mut two = dir.lease("b", "10.0.0.4", &[]);
    two.owner = "/run/a".into();
    take(&ledger, &two).unwrap();
    take(&ledger, &one).unwrap();
    end(&ledger, &two.id, &two.owner).unwrap();
    assert_eq!(all(&ledger).unwrap(), [one]);
    two.owner = "/run/a\nb".into();
    assert!(take(&ledger, &two).unwrap_err().to_string().contains("one line"));
}

/// What is read to know what is free does not grow with the leases: counted in bytes and lines, not in time.
#[test]
fn ten_thousand_leases_are_looked_at_no_longer_than_one() {
    let dir = Dir::new();
    let ledger = dir.ledger();
    let nth = |n: u32| {
        let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0ac0_0003 + n));
        let port = Port { protocol: Protocol::Tcp, port: 1024 + u16::try_from(n).unwrap(), host: None };
        let id = ContainerId::new(&format!("pot{n}")).unwrap();
        Lease { owner: dir.0.join(id.as_str()), id, addresses: vec![address], ports: vec![port] }
    };
    // As if they had come one by one, without ten thousand of them written forty times.
    write(&ledger, &(0..10_000).map(nth).map(|lease| (lease.owner.clone(), lease)).collect()).unwrap();
    let read = || {
        let found = Ledger::open(&ledger, false).unwrap().unwrap();
        (found.leases_at, found.whole - found.log_at, found.leased)
    };
    let (index, log, leased) = read();
    assert_eq!((log, leased.addresses.runs().count(), leased.tcp.runs().count()), (0, 1, 1));
    assert!(index < 200, "{index}");
    // Takes and ends add a line each, and the log is written away before it grows long.
    let (mut longest, mut anew) = (0, 0);
    for n in 10_000..10_200 {
        let before = read().1;
        take(&ledger, &nth(n)).unwrap();
        end(&ledger, &nth(n - 5_000).id, &nth(n - 5_000).owner).unwrap();
        let after = read().1;
        longest = longest.max(after);
        anew += usize::from(after < before);
    }
    assert!(longest <= LOG && (4..=20).contains(&anew), "{longest} {anew}");
    let leased = read().2;
    assert_eq!(
        leased.addresses.words().collect::<Vec<_>>(),
        ["10.192.0.3-10.192.19.138", "10.192.20.83-10.192.39.218"]
    );
    assert_eq!(all(&ledger).unwrap().len(), 10_000);
}
