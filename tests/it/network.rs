//! Pot networks on the kernel: packets between pots, their host and the world outside, in network namespaces of each
//! test's own. What is there is told by the kernel's own tools: ip(8), nft(8).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::crash::{End, at_every_moment, killed_at, put_back};
use crate::sys;
use crate::util::{DEADLINE, World, readable, wait_for_end};

/// How long what must not come is waited for.
const NEVER: Duration = Duration::from_millis(700);

/// The addresses of the host, and of who is outside.
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// A world whose host is a network namespace of its own, with a neighbour outside.
pub(crate) struct Net {
    pub(crate) world: World,
    host: File,
    outside: File,
    holders: [Child; 2],
}

/// Everything that a pot could leave in the host's network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture(Vec<String>);

impl Net {
    /// A new one, or none, having said why the test is skipped.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let mut world = World::new(name)?;
        let skipped = |reason: &str| println!("skipped: {name}: {reason}");
        for tool in ["/usr/sbin/ip", "/usr/sbin/nft"] {
            if !fs::exists(tool).unwrap() {
                skipped(tool);
                return None;
            }
        }
        // Its own ledger: one a host, and this is another host.
        let host = holder(&world, "mount --make-rprivate / && mount -t tmpfs tmpfs /run");
        let outside = holder(&world, "true");
        let namespace = |pid: u32, kind: &str| File::open(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let holders = [host, outside];
        let [host, outside] = [&holders[0], &holders[1]].map(Child::id);
        let net = namespace(host, "net");
        world.host = Some([net.try_clone().unwrap(), namespace(host, "mnt")]);
        let new = Self { world, host: net, outside: namespace(outside, "net"), holders };
        new.sh(&format!(
            "set -e; ip link set lo up
             ip link add eth0 type veth peer name eth0 netns {outside}
             ip link set eth0 addrgenmode none up
             ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad
             ip route add default via {}; ip -6 route add default via {}
             ip link add other type bridge; nft add table inet other",
            HOST[0], HOST[1], OUTSIDE[0], OUTSIDE[1]
        ));
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &format!(
                "set -e; ip link set lo up; ip link set eth0 addrgenmode none up
             ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad",
                OUTSIDE[0], OUTSIDE[1]
            ),
        ]);
        sys::enter(&mut command, vec![std::os::fd::AsRawFd::as_raw_fd(&new.outside)]);
        let outcome = new.world.call(command);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        Some(new)
    }

    /// Runs a script of the host's shell there; its stdout.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        let host = self.world.host.as_ref().unwrap();
        sys::enter(&mut command, host.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect());
        let outcome = self.world.call(command);
        assert_eq!(outcome.code, Some(0), "{script}: {outcome:?}");
        outcome.stdout
    }

    fn picture(&self) -> Picture {
        let all = [
            "ip -j addr",
            "ip -j route show table all",
            "ip -j -6 route show table all",
            "nft -j list ruleset",
            "grep -r . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/route_localnet",
            "grep -r . /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv6/conf/*/accept_ra",
            "cat /run/potrun.leases 2>/dev/null || true",
            "ls /run | grep -v potrun.leases || true",
        ];
        Picture(all.iter().map(|script| self.sh(script)).collect())
    }

    /// Waits until the host's network and the world are as they were.
    #[track_caller]
    pub(crate) fn same(&self, before: &(Picture, crate::util::Snapshot), what: &str) {
        // What outlives a delete for a moment is the child that the kernel keeps waiting.
        self.world.settles(&before.1);
        for (now, before) in self.picture().0.iter().zip(&before.0.0) {
            let (now, before) = (items(now), items(before));
            let more: Vec<&String> = now.iter().filter(|item| !before.contains(item)).collect();
            let less: Vec<&String> = before.iter().filter(|item| !now.contains(item)).collect();
            assert!(more.is_empty() && less.is_empty(), "{what}: too many: {more:?}, missing: {less:?}");
        }
    }

    pub(crate) fn before(&self) -> (Picture, crate::util::Snapshot) {
        (self.picture(), self.world.snapshot())
    }

    /// A pot that waits, with its network; its namespace.
    #[track_caller]
    pub(crate) fn pot(&self, name: &str, pot: Value) -> (String, File) {
        let id = self.world.running(name, |config| config["pot"] = pot);
        let file = File::open(format!("/proc/{}/ns/net", self.world.pid(&id))).unwrap();
        (id, file)
    }

    /// A private bridge, as `network create` writes it down.
    fn private(&self, name: &str, net: &str, gateway: &str) {
        let dir = self.world.store().join("bridges");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), format!("name={name}\nnet={net}\ngateway={gateway}\n")).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            drop(holder.kill().and_then(|()| holder.wait()));
        }
    }
}

/// The items of a tool's list, or the lines of a text.
fn items(text: &str) -> Vec<String> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(all)) => all.iter().map(Value::to_string).collect(),
        Ok(Value::Object(all)) => all["nftables"].as_array().unwrap().iter().map(Value::to_string).collect(),
        _ => text.lines().map(String::from).collect(),
    }
}

/// A process that keeps a new network and mount namespace; it ends with the world.
fn holder(world: &World, script: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{script} && echo ready && exec sleep 100000")]);
    command.env("WORLD", &world.token).stdin(Stdio::null()).stdout(Stdio::piped());
    sys::unshare(&mut command, libc::CLONE_NEWNET | libc::CLONE_NEWNS);
    let mut child = command.spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(ready, *b"ready\n");
    child
}

/// Does something in a network namespace: a thread goes there, and sockets stay where they were made.
fn within<T: Send>(net: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(net, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn any(like: SocketAddr, port: u16) -> SocketAddr {
    at(if like.is_ipv4() { "0.0.0.0" } else { "::" }, port)
}

/// Binds a socket. Those of this process that were closed live on for a moment in the children that other tests are
/// starting.
fn bound<T>(bind: impl Fn() -> std::io::Result<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match bind() {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

/// Connects from one namespace to `to`, where a server in another is expected at `port`; whom the server sees.
fn tcp(client: &File, to: SocketAddr, server: &File, port: u16) -> Option<IpAddr> {
    let listener = within(server, || bound(|| TcpListener::bind(any(to, port))));
    let mut stream = within(client, || TcpStream::connect_timeout(&to, NEVER)).ok()?;
    assert!(readable(listener.as_fd(), Instant::now() + DEADLINE), "who answered at {to}?");
    let (mut accepted, peer) = listener.accept().unwrap();
    accepted.write_all(b"hello").unwrap();
    drop(accepted);
    let mut text = String::new();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    Some(peer.ip())
}

/// Sends a datagram and waits for its echo; whom the server sees.
fn udp(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) -> Option<IpAddr> {
    client.send_to(b"ping", to).unwrap();
    if !readable(server.as_fd(), Instant::now() + NEVER) {
        return None;
    }
    let mut bytes = [0; 16];
    let (length, peer) = server.recv_from(&mut bytes).unwrap();
    server.send_to(&bytes[..length], peer).unwrap();
    assert!(readable(client.as_fd(), Instant::now() + DEADLINE), "the echo from {to} does not come");
    let (length, from) = client.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from), (&b"ping"[..], to));
    Some(peer.ip())
}

fn udp_socket(net: &File, like: SocketAddr, port: u16) -> UdpSocket {
    within(net, || bound(|| UdpSocket::bind(any(like, port))))
}

#[test]
fn exported_ports_are_reached_from_everywhere() {
    let Some(net) = Net::new("ports") else { return };
    let before = net.before();
    net.private("lab", "10.192.0.64/29", "10.192.0.65");
    let (web, inside) = net.pot(
        "web",
        json!({
            "network": {"type": "public-bridge", "stack": "dual"},
            "exportedPorts": [
                {"port": 80, "hostPort": 8080},
                {"port": 53, "hostPort": 8053, "protocol": "udp"},
                {"port": 81, "hostPort": 8081, "hostAddress": "127.0.0.1"},
                {"port": 82, "hostPort": 8082, "hostAddress": HOST[0]},
                {"port": 83},
            ],
        }),
    );
    let (near, neighbour) = net.pot("near", json!({"network": {"type": "public-bridge", "stack": "dual"}}));
    let (far, other) = net.pot("far", json!({"network": {"type": "private-bridge", "bridge": "lab"}}));
    let all: [(&str, &File, &[&str]); 5] = [
        ("outside", &net.outside, &[HOST[0], HOST[1]]),
        ("the host", &net.host, &[HOST[0], HOST[1], "127.0.0.1", "10.192.0.1"]),
        ("a neighbour", &neighbour, &[HOST[0], HOST[1], "10.192.0.1"]),
        ("a pot of another bridge", &other, &[HOST[0]]),
        ("the pot itself", &inside, &[HOST[0], HOST[1]]),
    ];
    for (who, client, addresses) in all {
        for address in addresses {
            let seen = tcp(client, at(address, 8080), &inside, 80);
            assert!(seen.is_some(), "{who} does not reach {address}");
            let to = at(address, 8053);
            let (ours, theirs) = (udp_socket(client, to, 0), udp_socket(&inside, to, 53));
            assert!(udp(&ours, to, &theirs).is_some(), "{who} does not reach {address} by udp");
        }
    }
    // Who comes from outside is seen as who it is.
    for n in [0, 1] {
        let seen = tcp(&net.outside, at(HOST[n], 8080), &inside, 80);
        assert_eq!(seen, Some(OUTSIDE[n].parse().unwrap()));
    }
    // One address of the host only.
    assert!(tcp(&net.host, at("127.0.0.1", 8081), &inside, 81).is_some());
    assert!(tcp(&net.host, at(HOST[0], 8081), &inside, 81).is_none());
    assert!(tcp(&net.outside, at(HOST[0], 8081), &inside, 81).is_none());
    assert!(tcp(&net.outside, at(HOST[0], 8082), &inside, 82).is_some());
    assert!(tcp(&net.host, at("127.0.0.1", 8082), &inside, 82).is_none());
    // The lowest free port of the range was leased.
    assert!(tcp(&net.outside, at(HOST[0], 1024), &inside, 83).is_some());
    // What is not exported is not there, and the host's own 127.0.0.1 is not a pot's.
    assert!(tcp(&net.outside, at(HOST[0], 80), &inside, 80).is_none());
    let own = within(&net.host, || TcpListener::bind("127.0.0.1:9999").unwrap());
    within(&inside, || {
        let result = TcpStream::connect_timeout(&at("127.0.0.1", 9999), NEVER);
        assert!(result.is_err(), "{result:?}");
    });
    drop(own);
    // Outgoing: by the host's address.
    for n in [0, 1] {
        assert_eq!(tcp(&inside, at(OUTSIDE[n], 7777), &net.outside, 7777), Some(HOST[n].parse().unwrap()));
    }
    drop((inside, neighbour, other));
    for id in [web, near, far] {
        net.world.ok(&["delete", "--force", &id]);
    }
    fs::remove_dir_all(net.world.store().join("bridges")).unwrap();
    net.same(&before, "after all are deleted");
}

#[test]
fn pots_of_different_bridges_do_not_reach_each_other() {
    let Some(net) = Net::new("apart") else { return };
    net.private("one", "10.192.0.64/29", "10.192.0.65");
    net.private("two", "10.192.0.72/29", "10.192.0.73");
    let pot = |bridge: &str| json!({"network": {"type": "private-bridge", "bridge": bridge}});
    let (_, public) = net.pot("public", json!({"network": {"type": "public-bridge"}}));
    let (_, one) = net.pot("one", pot("one"));
    let (_, twin) = net.pot("twin", pot("one"));
    let (_, two) = net.pot("two", pot("two"));
    let [public_at, one_at, twin_at, two_at] = ["10.192.0.3", "10.192.0.66", "10.192.0.67", "10.192.0.74"];
    assert!(tcp(&one, at(twin_at, 80), &twin, 80).is_some(), "members of one bridge reach each other");
    for (from, to, server) in
        [(&one, two_at, &two), (&two, one_at, &one), (&public, one_at, &one), (&one, public_at, &public)]
    {
        assert!(tcp(from, at(to, 80), server, 80).is_none(), "{to} is reached");
        let to = at(to, 53);
        let (ours, theirs) = (udp_socket(from, to, 0), udp_socket(server, to, 53));
        assert!(udp(&ours, to, &theirs).is_none(), "{to} is reached by udp");
    }
}

#[test]
fn isolated_pots_of_one_bridge_do_not_reach_each_other() {
    let Some(net) = Net::new("isolated") else { return };
    net.sh("mount -t tmpfs tmpfs /etc && echo POT_ISOLATE_VNET_POTS=true > /etc/potrun.conf");
    let pot = json!({"network": {"type": "public-bridge", "stack": "dual"}, "exportedPorts": [{"port": 80}]});
    let (_, one) = net.pot("one", pot.clone());
    let (id, two) = net.pot("two", pot);
    for [from, to] in [["10.192.0.3", "10.192.0.4"], ["fd70:6f74::2", "fd70:6f74::3"]] {
        for (from, to, client, server) in [(from, to, &one, &two), (to, from, &two, &one)] {
            assert!(tcp(client, at(to, 80), server, 80).is_none(), "{from} reaches {to}");
            let to = at(to, 53);
            let (ours, theirs) = (udp_socket(client, to, 0), udp_socket(server, to, 53));
            assert!(udp(&ours, to, &theirs).is_none(), "{from} reaches {to} by udp");
        }
    }
    // What is exported is, and so is the world; but where the kernel translates what it bridges (br_netfilter), it takes
    // the way from one to the other for one within the bridge.
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    net.sh(&format!("test ! -e {bridged} || echo 0 > {bridged}"));
    assert!(tcp(&one, at(HOST[0], 1025), &two, 80).is_some());
    assert!(tcp(&one, at(OUTSIDE[0], 7777), &net.outside, 7777).is_some());
    // They know nothing of each other: the image has no such file.
    let outcome = net.world.run(&["exec", &id, "/bin/busybox", "cat", "/etc/hosts"]);
    assert!(outcome.stderr.contains("No such file"), "{outcome:?}");
}

#[test]
fn neighbours_know_each_other_by_name() {
    let Some(net) = Net::new("names") else { return };
    net.private("lab", "10.192.0.64/29", "10.192.0.65");
    let before = net.before();
    let hosts = |id: &str| -> Vec<String> {
        let text = net.world.ok(&["exec", id, "/bin/busybox", "cat", "/etc/hosts"]);
        text.lines().filter(|line| !line.starts_with('#')).skip(2).map(|line| line.trim_end().into()).collect()
    };
    let (one, _) = net.pot("one", json!({"network": {"type": "public-bridge"}}));
    let two = net.world.running("two", |config| {
        config["pot"] = json!({
            "network": {"type": "public-bridge", "stack": "dual"},
            "hosts": [{"name": "db", "address": "192.0.2.7"}],
        });
        config["hostname"] = json!("second.example");
        config["root"]["readonly"] = json!(true);
    });
    let (far, _) = net.pot("far", json!({"network": {"type": "private-bridge", "bridge": "lab"}}));
    let ours = [format!("10.192.0.3 {one}")];
    let theirs = ["10.192.0.4", "fd70:6f74::2"].map(|address| format!("{address} {two} second.example"));
    assert_eq!(hosts(&one), [&ours[..], &theirs].concat());
    assert_eq!(hosts(&two), [&["192.0.2.7 db".into()], &ours[..], &theirs].concat());
    assert_eq!(hosts(&far), [format!("10.192.0.66 {far}")]);
    // A name is an address for the programs of the pot.
    let server = File::open(format!("/proc/{}/ns/net", net.world.pid(&two))).unwrap();
    let listener = within(&server, || bound(|| TcpListener::bind("10.192.0.4:80")));
    net.world.ok(&["exec", &one, "/bin/busybox", "nc", "second.example", "80", "-e", "/bin/busybox", "true"]);
    drop((listener.accept().unwrap(), listener, server));
    // It is nobody's to change.
    let outcome = net.world.run(&["exec", &one, "/bin/sh", "-c", "echo 192.0.2.1 evil >> /etc/hosts"]);
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    net.world.ok(&["delete", "--force", &two]);
    assert_eq!(hosts(&one), ours);
    let (three, _) = net.pot("three", json!({"network": {"type": "public-bridge"}}));
    assert_eq!(hosts(&one), [ours[0].clone(), format!("10.192.0.4 {three}")]);
    for id in [one, three, far] {
        net.world.ok(&["delete", "--force", &id]);
    }
    net.same(&before, "after all are deleted");
}

#[test]
fn a_pot_has_ipv6_where_its_stack_has_it() {
    let Some(net) = Net::new("ipv6-by-stack") else { return };
    // What ip(8) and the kernel say of an interface, seen in the pot's network.
    let inside =
        |id: &str, command: &str| net.sh(&format!("nsenter --net=/proc/{}/ns/net {command}", net.world.pid(id)));
    let interface = |id: &str| {
        let annotations = &net.world.state(id)["annotations"];
        annotations["org.bsdpot.pot.potInterface"].as_str().unwrap().to_owned()
    };
    let families = |id: &str, interface: &str| -> Vec<String> {
        let all: Value = serde_json::from_str(&inside(id, &format!("ip -j addr show {interface}"))).unwrap();
        let all = all[0]["addr_info"].as_array().unwrap().iter();
        all.map(|one| format!("{} {}", one["family"].as_str().unwrap(), one["scope"].as_str().unwrap())).collect()
    };
    let (four, _) = net.pot("four", json!({"network": {"type": "public-bridge"}}));
    assert_eq!(families(&four, &interface(&four)), ["inet global"]);
    assert_eq!(families(&four, "lo"), ["inet host", "inet6 host"], "the loopback address is the pot's own");

    // The same where the pot's /proc cannot be written.
    for (name, options) in [("both", json!([])), ("read-only", json!(["ro"]))] {
        let both = net.world.running(name, |config| {
            config["pot"] = json!({"network": {"type": "public-bridge", "stack": "dual"}});
            let proc = json!({"destination": "/proc", "type": "proc", "source": "proc", "options": options});
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|one| one["destination"] != "/proc");
            mounts.push(proc);
        });
        assert_eq!(families(&both, &interface(&both)), ["inet global", "inet6 global", "inet6 link"]);
        let conf = |what: &str| inside(&both, &format!("cat /proc/sys/net/ipv6/conf/{}/{what}", interface(&both)));
        assert_eq!([conf("accept_ra"), conf("accept_dad")], ["0\n", "0\n"], "{name}");
    }
}

#[test]
fn a_port_that_somebody_has_is_refused_with_who_it_is() {
    let Some(net) = Net::new("held") else { return };
    let before = net.before();
    let bundle = |port: u16, protocol: &str| {
        net.world.bundle("exec sleep 100000", |config| {
            config["pot"] = json!({
                "network": {"type": "public-bridge"},
                "exportedPorts": [{"port": 80, "hostPort": port, "protocol": protocol}],
            });
        })
    };
    let own = format!("(pid {})", std::process::id());
    let id = net.world.id("held");
    let refused = |port: u16, protocol: &str, by: &str| {
        let (bundle, end) = (bundle(port, protocol), Instant::now() + DEADLINE);
        loop {
            let text = net.world.fails(1, &["create", "-b", &bundle, &id]);
            assert!(text.contains(&format!("port {port} of the host is taken: ")), "{text}");
            // Children that other tests are starting have our sockets, too, for a moment.
            if text.contains(by) {
                break;
            }
            assert!(Instant::now() < end, "{text}");
        }
    };
    for (n, address) in ["0.0.0.0", "127.0.0.1", "[::]", "[::1]"].into_iter().enumerate() {
        let port = 7000 + n as u16;
        let listener = within(&net.host, || TcpListener::bind(format!("{address}:{port}")).unwrap());
        refused(port, "tcp", &own);
        drop(listener);
        let socket = within(&net.host, || UdpSocket::bind(format!("{address}:{port}")).unwrap());
        refused(port, "udp", &own);
        drop(socket);
    }
    // The near end of a connection that lives.
    let listener = within(&net.outside, || TcpListener::bind(at(OUTSIDE[0], 7777)).unwrap());
    let stream = within(&net.host, || TcpStream::connect(at(OUTSIDE[0], 7777)).unwrap());
    refused(stream.local_addr().unwrap().port(), "tcp", &own);
    drop((listener, stream));
    // The lowest of the range, which is leased: the next one is.
    let listener = within(&net.host, || TcpListener::bind("0.0.0.0:1024").unwrap());
    let (first, inside) =
        net.pot("first", json!({"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]}));
    assert!(tcp(&net.outside, at(HOST[0], 1025), &inside, 80).is_some());
    refused(1025, "tcp", &format!("container {first}"));
    drop((listener, inside));
    net.world.ok(&["delete", "--force", &first]);
    net.same(&before, "after the delete");
}

#[test]
fn creates_at_once_get_different_addresses_and_ports() {
    let Some(net) = Net::new("at-once") else { return };
    let before = net.before();
    const COUNT: usize = 100;
    let pot = json!({"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]});
    let bundle = net.world.bundle("exec sleep 100000", |config| config["pot"] = pot);
    let ids: Vec<String> = (0..COUNT).map(|n| net.world.id(&format!("p{n}"))).collect();
    let quiet = |args: &[&str]| net.world.command(args).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let children: Vec<_> = ids.iter().map(|id| quiet(&["create", "-b", &bundle, id])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let ledger = net.sh("cat /run/potrun.leases");
    let mut addresses = std::collections::BTreeSet::new();
    let mut ports = std::collections::BTreeSet::new();
    for line in ledger.lines().filter(|line| line.starts_with("+ ")) {
        let words: Vec<&str> = line.split(' ').collect();
        addresses.insert(words[2]);
        ports.insert(words[3].to_string());
    }
    assert_eq!((addresses.len(), ports.len()), (COUNT, COUNT), "{ledger}");
    assert_eq!(ports, (1024..1024 + COUNT).map(|port| format!("tcp/{port}")).collect());
    let children: Vec<_> = ids.iter().map(|id| quiet(&["delete", "--force", id])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    net.same(&before, "after all are deleted");
}

#[test]
fn five_hundred_pots_come_and_go() {
    let Some(net) = Net::new("flood") else { return };
    let before = net.before();
    let pot = json!({"network": {"type": "public-bridge", "stack": "dual"}, "exportedPorts": [{"port": 80}]});
    let bundle = net.world.bundle("exec sleep 100000", |config| config["pot"] = pot);
    let ids: Vec<String> = (0..500).map(|n| net.world.id(&format!("p{n}"))).collect();
    for id in &ids {
        net.world.ok(&["create", "-b", &bundle, id]);
    }
    let last = File::open(format!("/proc/{}/ns/net", net.world.pid(&ids[499]))).unwrap();
    assert!(tcp(&net.outside, at(HOST[0], 1024 + 499), &last, 80).is_some());
    drop(last);
    for id in &ids {
        net.world.ok(&["delete", "--force", id]);
    }
    net.same(&before, "after all are deleted");
}

#[test]
fn a_flow_of_udp_ends_with_its_pot() {
    let Some(net) = Net::new("flow") else { return };
    for (n, stack) in ["ipv4", "ipv6"].into_iter().enumerate() {
        let pot = json!({
            "network": {"type": "public-bridge", "stack": stack},
            "exportedPorts": [{"port": 53, "hostPort": 8053, "protocol": "udp"}],
        });
        let to = at(HOST[n], 8053);
        let client = udp_socket(&net.outside, to, 5353);
        let (first, inside) = net.pot("first", pot.clone());
        assert!(udp(&client, to, &udp_socket(&inside, to, 53)).is_some());
        drop(inside);
        net.world.ok(&["delete", "--force", &first]);
        let address = if n == 0 { "10.192.0.3" } else { "fd70:6f74::2" };
        let end = Instant::now() + DEADLINE;
        while net
            .sh("cat /proc/net/nf_conntrack 2>/dev/null || { conntrack -L -f ipv4 && conntrack -L -f ipv6; }")
            .contains(address)
        {
            assert!(Instant::now() < end, "the flow stays");
        }
        // The same flow comes to the next pot that has the port, at another address.
        let (keep, _) = net.pot("keep", json!({"network": {"type": "public-bridge", "stack": stack}}));
        let (second, inside) = net.pot("second", pot);
        assert!(udp(&client, to, &udp_socket(&inside, to, 53)).is_some());
        drop(inside);
        for id in [keep, second] {
            net.world.ok(&["delete", "--force", &id]);
        }
    }
}

#[test]
fn an_alias_binds_and_connects_from_its_own_addresses_only() {
    let Some(net) = Net::new("alias") else { return };
    let before = net.before();
    // One that the host has already stays; one that it has not comes and goes.
    let pot = json!({"network": {"type": "alias", "stack": "dual", "addresses": ["192.0.2.9", "eth0|2001:db8::9"]}});
    let (id, _) = net.pot("alias", pot);
    assert!(net.sh("ip addr show eth0").contains("192.0.2.9/32"));
    let nc = |script: &str| net.world.run(&["exec", &id, "/bin/busybox", "sh", "-c", script]);
    // From outside the pot is seen as its own address, whatever the host's is.
    for (to, own) in [(OUTSIDE[0], "192.0.2.9"), (OUTSIDE[1], "2001:db8::9")] {
        let listener = within(&net.outside, || TcpListener::bind(at(to, 7000)).unwrap());
        let mut command = net.world.command(&["exec", &id, "/bin/busybox", "nc", to, "7000"]);
        let mut client = command.stdout(Stdio::null()).spawn().unwrap();
        assert!(readable(listener.as_fd(), Instant::now() + DEADLINE));
        assert_eq!(listener.accept().unwrap().1.ip(), own.parse::<IpAddr>().unwrap());
        assert!(client.wait().unwrap().success());
    }
    // Not by the host's address, nor by the host's loopback address; the pot's own is reached by either.
    let own = within(&net.host, || TcpListener::bind("127.0.0.1:7001").unwrap());
    assert_ne!(nc("/bin/busybox nc -w 1 127.0.0.1 7001 </dev/null").code, Some(0));
    drop(own);
    assert_ne!(nc(&format!("/bin/busybox nc -w 1 -l -p 7002 {} </dev/null", HOST[0])).code, Some(0));
    // A server that binds to all addresses has the pot's.
    let fifo = net.world.fifo("listens");
    let mut server = net.world.command(&["exec", &id, "/bin/busybox", "sh", "-c",
        "/bin/busybox nc -ll -p 7003 -e /bin/busybox echo hello & \
         until /bin/busybox grep -qi ':1B5B ' /proc/net/tcp /proc/net/tcp6; do :; done; echo up > /shared/listens; wait"]);
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(fifo.line(), "up");
    let reached =
        |address: &str| within(&net.outside, || TcpStream::connect_timeout(&at(address, 7003), NEVER)).is_ok();
    assert!(!reached(HOST[0]) && !reached(HOST[1]));
    assert!(reached("192.0.2.9") || reached("2001:db8::9"));
    assert_eq!(nc("/bin/busybox nc -w 5 ::1 7003").stdout, "hello\n");
    net.world.ok(&["delete", "--force", &id]);
    drop(server.wait());
    net.same(&before, "after the delete");

    let (id, _) = net.pot("second", json!({"network": {"type": "alias", "addresses": [HOST[0]]}}));
    net.world.ok(&["delete", "--force", &id]);
    net.same(&before, "the host's own address stays");
}

#[test]
fn gc_ends_what_a_lost_state_directory_left() {
    let Some(net) = Net::new("lost") else { return };
    let before = net.before();
    let pot = json!({
        "network": {"type": "public-bridge", "stack": "dual"},
        "exportedPorts": [{"port": 80}, {"port": 53, "protocol": "udp", "hostAddress": HOST[1]}],
        "hosts": [{"name": "db", "address": "192.0.2.7"}],
    });
    let bundle = net.world.bundle("exec sleep 100000", |config| config["pot"] = pot);
    let (lost, stays) = (net.world.id("lost"), net.world.id("stays"));
    for id in [&lost, &stays] {
        net.world.ok(&["create", "-b", &bundle, id]);
    }
    let seen = || net.sh("nft list ruleset; ip addr; grep -rv ^# /run/potrun.hosts || true");
    let with_both = seen();
    let pid = net.world.pid(&lost);
    fs::remove_dir_all(net.world.root().join(&lost)).unwrap();
    let group = net.world.group(&lost);
    fs::write(group.join("cgroup.kill"), "1").unwrap();
    wait_for_end(pid);
    let said = net.world.ok(&["gc"]);
    assert!(said.contains(&format!("lease of {lost}\n")) && !said.contains(&stays), "{said}");
    let now = seen();
    for what in ["10.192.0.3", "fd70:6f74::2", lost.as_str()] {
        assert!(with_both.contains(what) && !now.contains(what), "{what}: {now}");
    }
    net.world.ok(&["delete", "--force", &stays]);
    fs::remove_dir(group).unwrap();
    net.same(&before, "after gc and delete");
}

/// An address by which the host is reached is no pot's, whichever way it is asked for.
#[test]
fn an_address_of_the_host_is_no_pot_s() {
    let Some(net) = Net::new("own-address") else { return };
    net.sh("ip addr add 10.192.0.3/32 dev eth0; ip addr add fd70:6f74::2/128 dev eth0 nodad");
    let before = net.before();
    for (stack, own, next) in [("ipv4", "10.192.0.3", "10.192.0.4"), ("ipv6", "fd70:6f74::2", "fd70:6f74::3")] {
        let network = json!({"type": "public-bridge", "stack": stack});
        let (id, _) = net.pot("pot", json!({"network": network}));
        let shown: Value = serde_json::from_str(&net.world.ok(&["show", &id])).unwrap();
        assert!(shown.to_string().contains(&format!("{next:?}")), "{shown}");
        net.world.ok(&["delete", "--force", &id]);
        let bundle = net.world.bundle("true", |config| {
            config["pot"] = json!({"network": network});
            config["pot"]["network"]["addresses"] = json!([own]);
        });
        let text = net.world.fails(1, &["create", "-b", &bundle, &net.world.id("x")]);
        assert!(text.contains(&format!("{own} is taken: the host's own on eth0")), "{text}");
        net.same(&before, stack);
    }
}

#[test]
fn forwarding_of_somebody_else_stays() {
    let Some(net) = Net::new("forwarding") else { return };
    net.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/eth0/forwarding");
    let before = net.before();
    let (id, _) = net.pot("pot", json!({"network": {"type": "public-bridge", "stack": "dual"}}));
    assert_eq!(net.sh("cat /proc/sys/net/ipv6/conf/all/forwarding"), "1\n");
    net.world.ok(&["delete", "--force", &id]);
    net.same(&before, "after the delete");
}

#[test]
fn a_bridge_or_a_table_of_somebody_else_is_left_alone() {
    let Some(net) = Net::new("foreign") else { return };
    let pot = json!({"network": {"type": "public-bridge"}});
    let bundle = net.world.bundle("exec sleep 100000", |config| config["pot"] = pot);
    for (make, unmake) in [
        ("ip link add pb-public type bridge", "ip link del pb-public"),
        ("nft add table inet potrun", "nft delete table inet potrun"),
    ] {
        net.sh(make);
        let before = net.before();
        let text = net.world.fails(1, &["create", "-b", &bundle, &net.world.id("x")]);
        assert!(text.contains("somebody else"), "{text}");
        net.same(&before, make);
        net.sh(unmake);
    }
}

#[test]
fn a_network_namespace_that_is_joined_keeps_its_network() {
    let Some(net) = Net::new("joined") else { return };
    let bundle = net.world.bundle("true", |config| {
        config["pot"] = json!({"network": {"type": "public-bridge"}});
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}]);
    });
    let text = net.world.fails(1, &["create", "-b", &bundle, &net.world.id("x")]);
    assert!(
        text.contains("/pot/network/type: public-bridge is a network of its own, but /linux/namespaces joins"),
        "{text}"
    );
}

#[test]
fn nft_sees_in_the_kernel_what_the_plan_says() {
    let Some(net) = Net::new("nft") else { return };
    let (id, _) = net.pot("pot", json!({
        "network": {"type": "public-bridge", "stack": "dual"},
        "exportedPorts": [{"port": 80, "hostPort": 8080}, {"port": 53, "hostPort": 53, "protocol": "udp", "hostAddress": HOST[1]}],
    }));
    let list = "nft list table inet potrun | grep -v 'comment \"potrun\"'";
    let ours = net.sh(list);
    net.world.ok(&["delete", "--force", &id]);
    let address = |text: &str| text.parse().unwrap();
    let element =
        |one: potrun::linux::nft::Element, name: &str| format!("add element inet potrun {}\n", one.text(name));
    use potrun::bundle::pot::Protocol::{Tcp, Udp};
    use potrun::linux::nft::Element::{Bridge, Port, Pot};
    let (v4, v6) = (address("10.192.0.3"), address("fd70:6f74::2"));
    let text = potrun::linux::nft::text()
        + &element(Bridge { name: "pb-public".into() }, "")
        + &element(Pot { address: v4 }, &id)
        + &element(Pot { address: v6 }, &id)
        + &element(Port { protocol: Tcp, host: None, host_port: 8080, address: v4, port: 80 }, &id)
        + &element(Port { protocol: Tcp, host: None, host_port: 8080, address: v6, port: 80 }, &id)
        + &element(Port { protocol: Udp, host: Some(address(HOST[1])), host_port: 53, address: v6, port: 53 }, &id);
    fs::write(net.world.dir.join("table.nft"), text).unwrap();
    net.sh(&format!("nft -f {}/table.nft", net.world.dir.display()));
    assert_eq!(ours, net.sh(list));
}

/// The first process works beside the runtime: whichever of the two fails, its own words are what the caller is told, and
/// nothing of the other's work stays.
#[test]
fn a_process_that_fails_beside_the_runtime_leaves_nothing() {
    let Some(net) = Net::new("beside") else { return };
    let before = net.before();
    for (edit, said) in [
        // Before there is a /proc, from which on interfaces can come; and after it.
        (json!({"root": {"path": "nowhere"}}), "mount root"),
        (json!({"mounts": [{"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=much"]}]}), "tmpfs"),
        (json!({"process": {"args": ["/no/such/program"]}}), "/no/such/program"),
    ] {
        let bundle = net.world.bundle("true", |config| {
            bridged(config);
            for (key, value) in edit.as_object().unwrap() {
                match (&mut config[key], value) {
                    (Value::Object(had), Value::Object(more)) => had.extend(more.clone()),
                    (Value::Array(had), Value::Array(more)) => had.extend(more.clone()),
                    (had, more) => *had = more.clone(),
                }
            }
        });
        let text = net.world.fails(1, &["create", "-b", &bundle, &net.world.id("x")]);
        assert!(text.contains(said), "{said}: {text}");
        net.same(&before, said);
    }
}

fn bridged(config: &mut Value) {
    config["pot"] = json!({
        "network": {"type": "public-bridge", "stack": "dual"},
        "exportedPorts": [{"port": 80, "hostPort": 8080}],
    });
}

#[test]
fn create_of_a_bridged_pot_can_die_at_any_moment() {
    let Some(net) = Net::new("create-net") else { return };
    let bundle = net.world.bundle("exec sleep 100000", bridged);
    let before = net.before();
    at_every_moment(3, |n, by_gc| {
        let id = net.world.id(&format!("c{n}"));
        let end = killed_at(&net.world, &["create", "-b", &bundle, &id], n);
        put_back(&net.world, &id, by_gc, &["created"], &end);
        net.same(&before, &format!("moment {n}, by gc: {by_gc}, {end:?}"));
        end
    });
}

#[test]
fn delete_of_a_bridged_pot_can_die_at_any_moment() {
    let Some(net) = Net::new("delete-net") else { return };
    let bundle = net.world.bundle("exec sleep 100000", bridged);
    let before = net.before();
    at_every_moment(3, |n, by_gc| {
        let id = net.world.id(&format!("d{n}"));
        net.world.ok(&["create", "-b", &bundle, &id]);
        let pid = net.world.pid(&id);
        let end = killed_at(&net.world, &["delete", "--force", &id], n);
        put_back(&net.world, &id, by_gc, &["created"], &end);
        wait_for_end(pid);
        net.same(&before, &format!("moment {n}, by gc: {by_gc}, {end:?}"));
        end
    });
}

#[test]
fn create_of_an_alias_can_die_at_any_moment() {
    let Some(net) = Net::new("create-alias") else { return };
    let bundle = net.world.bundle("exec sleep 100000", |config| {
        config["pot"] = json!({"network": {"type": "alias", "addresses": ["192.0.2.9"]}});
    });
    let before = net.before();
    at_every_moment(4, |n, by_gc| -> End {
        let id = net.world.id(&format!("a{n}"));
        let end = killed_at(&net.world, &["create", "-b", &bundle, &id], n);
        put_back(&net.world, &id, by_gc, &["created"], &end);
        net.same(&before, &format!("moment {n}, by gc: {by_gc}, {end:?}"));
        end
    });
}
