# Network cards of the host that a container has for itself (config-linux.md, "Network Devices"). The guest has two, on one
# wire: the kernel gives back what is a card, and not what is made of software.

# The cards, by name.
cards() {
    for one in /sys/class/net/*; do
        [ "$(basename "$(readlink -f "$one/device/driver")")" != virtio_net ] || echo "${one##*/}"
    done
}

# What of a card a container must leave as it was.
picture() { # card
    for file in address ifalias mtu; do cat "/sys/class/net/$1/$file"; done
    ip -o link show dev "$1" | grep -o '[<,]UP[,>]' | tr -d '<,>'
    ip -o address show dev "$1" scope global | tr -s ' ' | cut -d ' ' -f 3,4 | sort
}

# A container that has the card $card as lan0.
with_card() { # id
    pot "$1" 'sleep 1000' "" '"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}],
        "netDevices": {"'"$card"'": {"name": "lan0"}}}'
}

# The container has it, and reaches the other end of the wire; the host has it no more.
has_card() { # id
    there=$(pid "$1")
    same "$(nsenter --target "$there" --net ip -o address show dev lan0 scope global | tr -s ' ' | cut -d ' ' -f 3,4 | sort |
        tr '\n' ' ')" "inet 192.0.2.2/24 inet6 2001:db8:7::2/64 " "its addresses in the container"
    [ ! -e "/sys/class/net/$card" ] || fail "the host still has $card"
    until_true nsenter --target "$there" --net busybox ping -c 1 -W 1 192.0.2.1
}

case_a_card_is_lent_and_comes_back() {
    set -- $(cards)
    [ $# = 2 ] || skip "not two network cards of virtio"
    card=$1 wire=$2
    ip address add 192.0.2.1/24 dev "$wire" && ip link set "$wire" up || fail "the other card"
    ip link set "$card" alias mine && ip address add 192.0.2.2/24 dev "$card" && ip link set "$card" up &&
        ip address add 2001:db8:7::2/64 dev "$card" nodad || fail "the card"
    before=$(picture "$card")
    with_card a
    started a
    has_card a
    works "$potrun" delete --force a
    same "$(picture "$card")" "$before" "after delete"
    # A container that is killed: the kernel gives the card back, under the name that it had there, or, where the host
    # has got that name meanwhile, under one that it makes up.
    started a
    has_card a
    ip link add lan0 type dummy
    kill -9 "$there"
    until_true stopped a
    works "$potrun" delete a
    same "$(picture "$card")" "$before" "after kill -9 of the container"
    ip link delete lan0
    # A potrun that is killed, with its container.
    "$potrun" run --bundle "$bundles/a" a >"$work/out" 2>&1 </dev/null &
    runs=$!
    until_true sh -c "[ \"\$('$potrun' state a | grep -c '\"running\"')\" = 1 ]"
    has_card a
    kill -9 $runs "$there"
    until_true stopped a
    works "$potrun" delete --force a
    same "$(picture "$card")" "$before" "after kill -9 of potrun and the container"
    # A create that fails when it has been lent.
    pot b true "" '"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}],
        "netDevices": {"'"$card"'": {"name": "lan0"}}}, "hooks": {"createRuntime": [{"path": "/bin/false"}]}'
    refused createRuntime "$potrun" create --bundle "$bundles/b" b
    same "$(picture "$card")" "$before" "after a create that failed"
    for one in "$card" "$wire"; do ip link set "$one" down && ip address flush dev "$one"; done
    ip link set "$card" alias ""
}
