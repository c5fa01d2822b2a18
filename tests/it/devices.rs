//! Interfaces of the host that a container has for itself, in network namespaces of the test's own.

use serde_json::{Value, json};

use crate::network::Net;

/// What of an interface a container must leave as it was.
fn picture(net: &Net, name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(&net.sh(&format!("ip -j -d address show dev {name}"))).unwrap();
    let link = &all[0];
    let addresses = link["addr_info"].as_array().unwrap().iter().filter(|one| one["scope"] == "global");
    let mut all: Vec<Value> = addresses.map(|one| json!([one["local"], one["prefixlen"]])).collect();
    all.extend([link["address"].clone(), link["ifalias"].clone()]);
    all.push(json!(link["flags"].as_array().unwrap().contains(&json!("UP"))));
    all
}

#[test]
fn an_interface_is_lent_with_its_addresses_under_another_name() {
    let Some(net) = Net::new("netdev") else { return };
    net.sh("set -e; ip link add lend0 type veth peer name far0; ip link set lend0 alias mine
        ip address add 192.0.2.77/24 dev lend0; ip address add 2001:db8:7::7/64 dev lend0 nodad
        ip link set far0 up; ip link set lend0 up");
    let world = &net.world;
    let before = picture(&net, "lend0");
    let configure = |devices: Value| {
        move |config: &mut Value| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
            config["linux"]["netDevices"] = devices;
        }
    };
    // A create that fails later puts it back as it was.
    let bundle = world.bundle("true", |config| {
        configure(json!({"lend0": {"name": "eth0"}}))(config);
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
    });
    world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
    assert_eq!(picture(&net, "lend0"), before);
    // What is not there, or is there twice, is named; nothing is moved.
    for (devices, at) in [
        (json!({"lend0": {}, "none0": {}}), "/linux/netDevices/none0"),
        (json!({"lend0": {"name": "far0"}, "far0": {}}), "/linux/netDevices/lend0/name"),
        (json!({"lend0": {"name": "a/b"}}), "/linux/netDevices/lend0/name"),
        (json!({"lo": {}}), "/linux/netDevices/lo"),
    ] {
        let bundle = world.bundle("true", configure(devices));
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains(at), "{stderr}");
        assert_eq!(picture(&net, "lend0"), before);
    }
    let bundle = world.bundle("true", |config| {
        config["linux"]["netDevices"] = json!({"lend0": {}});
    });
    assert!(world.fails(1, &["create", "-b", &bundle, &world.id("a")]).contains("network namespace"));
    // Inside it has its other name and its addresses, and is up; the host has it no more.
    let script = "cat /sys/class/net/eth0/operstate; cat /sys/class/net/eth0/ifalias; ls /sys/class/net;
        grep -c 20010db80007 /proc/net/if_inet6; grep -o 192.0.2.77 /proc/net/fib_trie | head -n 1";
    let bundle = world.bundle(script, |config| {
        configure(json!({"lend0": {"name": "eth0"}}))(config);
        let sysfs = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]});
        config["mounts"].as_array_mut().unwrap().push(sysfs);
    });
    let id = world.id("a");
    let outcome = world.run(&["run", "-b", &bundle, &id]);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], "up", "{outcome:?}");
    assert_eq!(lines[1], format!("potrun {id} lend0"), "{outcome:?}");
    assert!(lines.contains(&"1") && lines.contains(&"192.0.2.77"), "{outcome:?}");
    assert!(lines[2..].contains(&"eth0") && !lines[2..].contains(&"lend0"), "{outcome:?}");
    // A veth ends with the network that it is in, as the kernel has it.
    assert!(!net.sh("ip -o link").contains("lend0"));
}
