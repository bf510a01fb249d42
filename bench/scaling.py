#!/usr/bin/env python3
"""What ranks send, and how far they scale: counted from the algorithm, and simulated.

    bench/scaling.py traffic NET... [--ranks 2,3,4,8] [--bn sync|local] [--json]
    bench/scaling.py measure NET... --times FILE [--batches 2,16,32,128] [--seconds 2]
    bench/scaling.py simulate [--times FILE] [--nodes 1,2,4,8,64,1024] [--net NAME] [--remedies]

traffic   counts the messages and bytes that each rank sends in a training step, exactly as src/comm does it
measure   times a net's layers on one core (evenkeel bench), at several batch sizes, and adds them to FILE; of what is measured
          again the faster stays, since other programs only make it slower
simulate  plays training steps of many nodes with these times (of bench/scaling.json), and prints efficiencies as Markdown

A NET is anything that evenkeel summary takes. The command is build/release/evenkeel, or --evenkeel PATH. The model of the
simulation, and what it leaves out, is in docs/scaling.md.
"""
import argparse
import json
import math
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUCKET = 1 << 18  # floats, as src/train/sharding.c has it
MOMENTS, SUMS, TOTALS = 3, 2, 3  # doubles: (count, mean, M2) and two sums of a channel; loss, correct, stop


def ask(evenkeel, *words):
    return json.loads(subprocess.run([evenkeel, *words, "--json"], check=True, stdout=subprocess.PIPE).stdout)


# --- what the algorithm sends


def is_batchnorm(layer):
    return layer["op"] == "batchnorm" and "frozen" not in layer["options"]


def is_synchronized(layer, local):
    return is_batchnorm(layer) and not local and "ghost" not in layer["options"]


def channels(layer):
    return layer["output"][0]


def partner(rank, gap, ranks):
    """Of a rank in a level of the tree; where the later run is a short one, its last rank."""
    return rank ^ gap if rank ^ gap < ranks else ranks - 1


def levels(ranks):
    gap = 1
    while gap < ranks:
        yield gap
        gap *= 2


def other_run(rank, gap, ranks):
    first = (rank // gap ^ 1) * gap
    return range(first, min(first + gap, ranks))


def merge_messages(rank, ranks):
    """That a rank sends in one merge."""
    return sum(partner(peer, gap, ranks) == rank for gap in levels(ranks) for peer in other_run(rank, gap, ranks))


def gradient_floats(layer, local):
    """Gamma's and beta's gradients come whole from the sums that a synchronized batchnorm has exchanged."""
    return 0 if is_synchronized(layer, local) else layer["parameters"]


def buckets(layers, local=False):
    """Their floats, and the layer with which each is complete, in the order of the backward pass."""
    tensors = [(i, gradient_floats(layers[i], local)) for i in reversed(range(len(layers)))]
    tensors = [(i, floats) for i, floats in tensors if floats > 0]
    found, floats = [], 0
    for k, (i, more) in enumerate(tensors):
        floats += more
        if floats >= BUCKET or k + 1 == len(tensors):
            found.append((floats, i))
            floats = 0
    return found


def slice_floats(floats, rank, ranks):
    return floats * (rank + 1) // ranks - floats * rank // ranks


def bucket_traffic(floats, rank, ranks):
    """Its slices to those that add them up, and its sums to all: messages and bytes."""
    own = slice_floats(floats, rank, ranks)
    others = [slice_floats(floats, peer, ranks) for peer in range(ranks) if peer != rank]
    return sum(n > 0 for n in others) + (ranks - 1) * (own > 0), 4 * (floats - own) + 4 * (ranks - 1) * own


def merges(layers, local=False):
    """Doubles of each merge of a step: forward, the loss, backward, at the end."""
    synchronized = [channels(layer) for layer in layers if is_synchronized(layer, local)]
    at_end = sum(channels(layer) for layer in layers if is_batchnorm(layer) and not is_synchronized(layer, local))
    return ([MOMENTS * c for c in synchronized] + [TOTALS] + [SUMS * c for c in reversed(synchronized)] +
            ([MOMENTS * at_end] if at_end else []))


def step_traffic(layers, rank, ranks, local=False):
    doubles = merges(layers, local)
    messages = merge_messages(rank, ranks)
    parts = [bucket_traffic(floats, rank, ranks) for floats, _ in buckets(layers, local)]
    return {"messages": len(doubles) * messages + sum(m for m, _ in parts),
            "bytes": 8 * sum(doubles) * messages + sum(b for _, b in parts),
            "merge_messages": len(doubles) * messages, "merge_bytes": 8 * sum(doubles) * messages}


# --- printing


def table(headings, rows):
    """Markdown, the columns after the first to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    print("| " + " | ".join(headings) + " |\n|---|" + "---:|" * (len(headings) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def name_of(net):
    return pathlib.Path(net).stem if net.endswith(".net") else net


def traffic(args):
    answer, rows = {}, []
    for net in args.nets:
        layers = ask(args.evenkeel, "summary", net)["layers"]
        of_net = {ranks: [step_traffic(layers, rank, ranks, args.bn == "local") for rank in range(ranks)] for ranks in args.ranks}
        answer[net] = of_net
        for ranks, each in of_net.items():
            most = max(each, key=lambda t: t["bytes"])
            rows.append([name_of(net), ranks, f"{each[0]['messages']:,}", f"{each[0]['bytes']:,}", f"{most['messages']:,}",
                         f"{most['bytes']:,}", f"{most['merge_messages']:,}", f"{most['merge_bytes']:,}"])
    if args.json:
        print(json.dumps(answer))
    else:
        table(["net", "ranks", "messages, rank 0", "bytes, rank 0", "messages, the busiest rank", "bytes", "of them merges", "bytes"],
              rows)


# --- measuring


def microseconds(seconds):
    return float(f"{1e6 * seconds:.4g}")


def measure(args):
    path = pathlib.Path(args.times)
    times = json.loads(path.read_text()) if path.exists() else {}
    for net in args.nets:
        of_net = times.setdefault(name_of(net), {"batches": {}})
        of_net["layers"] = [{k: layer[k] for k in ("op", "options", "inputs", "output", "parameters")}
                            for layer in ask(args.evenkeel, "summary", net)["layers"]]
        for batch in map(str, args.batches):
            run = ask(args.evenkeel, "bench", net, "--batch", batch, "--threads", "1", "--seconds", str(args.seconds))
            print(f"{name_of(net)}, {batch} samples: {1e3 * run['step_seconds']:.4g} ms", file=sys.stderr)
            found = {part: [microseconds(layer[part + "_seconds"]) for layer in run["layers"]] for part in ("forward", "backward")}
            found["outside"] = microseconds(run["outside_layers_seconds"])
            found["step"] = microseconds(run["step_seconds"])
            known = of_net["batches"].get(batch)
            if not known or found["step"] < known["step"]:
                of_net["batches"][batch] = found
            path.write_text(json.dumps(times, separators=(",", ":")) + "\n")


# --- simulating

NETWORKS = {  # seconds: of a message on its way, and of a core to send or take it; bytes a second
    "10 Gbit/s": {"latency": 20e-6, "overhead": 1e-6, "rate": 1.25e9},
    "100 Gbit/s": {"latency": 5e-6, "overhead": 0.5e-6, "rate": 12.5e9},
}
WITHIN = {"latency": 0.5e-6, "rate": 10e9}  # between ranks of one node, through its memory
ADDING = 5e9  # bytes a second that a rank adds up of others' gradients


def at_batch(of_net, part, samples):
    """Seconds of each layer on one core: between the measured batches along a line, above them in proportion, and below
    them what the smallest takes, since a vector's lanes hold as many samples."""
    known = sorted(int(b) for b in of_net["batches"])
    low = max((b for b in known if b <= samples), default=known[0])
    high = min((b for b in known if b >= samples), default=known[-1])
    share = (samples - low) / (high - low) if high > low else 0
    scale = max(samples / low, 1) if high == low else 1

    def of(batch):
        value = of_net["batches"][str(batch)][part]
        return value if isinstance(value, list) else [value]
    return [1e-6 * scale * (a + share * (b - a)) for a, b in zip(of(low), of(high))]


class Cluster:
    """Ranks with clocks of their own, and what they do to them."""

    def __init__(self, ranks, network, args, halving=False, per_node=1):
        self.ranks, self.network, self.per_node, self.halving = ranks, network, per_node, halving
        self.clock = [0.0] * ranks
        self.idle = [0.0] * ranks  # when the network is done with what a rank sent
        self.random = random.Random(args.seed)
        self.sigma = args.jitter

    def compute(self, seconds):
        if seconds <= 0:
            return
        draw, sigma, mean = self.random.gauss, self.sigma, -self.sigma ** 2 / 2
        self.clock = [at + seconds * math.exp(mean + sigma * draw(0, 1)) for at in self.clock]

    def merge(self, doubles):
        net, size = self.network, 8 * doubles
        for gap in levels(self.ranks):
            within = gap < self.per_node
            wire = size / WITHIN["rate"] if within else size * self.per_node / net["rate"]
            way = WITHIN["latency"] if within else net["latency"]
            sent = [0] * self.ranks
            after = self.clock[:]
            for rank in range(self.ranks):
                if not other_run(rank, gap, self.ranks):
                    continue
                peer = partner(rank, gap, self.ranks)
                sent[peer] += 1
                after[rank] = max(self.clock[rank], self.clock[peer] + sent[peer] * (net["overhead"] + wire) + way) + net["overhead"]
            self.clock = after

    def half_exchange(self, floats):
        """How long a rank's sends of a scatter or gather keep its core, and the network; and until the last has arrived."""
        net, ranks = self.network, self.ranks
        size = 4 * floats * (ranks - 1) / ranks * self.per_node
        count = math.ceil(math.log2(ranks)) if self.halving else ranks - 1
        core = 2 * count * net["overhead"]
        return core, size / net["rate"], net["latency"] * (count if self.halving else 1)

    def start(self, floats, who=None):
        """All ranks (or those in who, the others having begun) send; gives when all has arrived."""
        core, wire, way = self.half_exchange(floats)
        for rank in range(self.ranks) if who is None else who:
            begun = max(self.clock[rank], self.idle[rank])
            self.clock[rank] += core
            self.idle[rank] = begun + max(core, wire)
        return max(self.idle) + way


class Exchange:
    """The buckets' way: scattered, added up, gathered, each turn of a rank taken when it looks."""

    def __init__(self, cluster):
        self.cluster, self.scattered, self.gathered = cluster, [], []

    def start(self, floats):
        arrival = self.cluster.start(floats)
        self.scattered.append([floats, arrival, set(range(self.cluster.ranks))])

    def look(self, wait=False):
        c = self.cluster
        for bucket in self.scattered[:]:
            floats, arrival, waiting = bucket
            ready = [rank for rank in waiting if wait or c.clock[rank] >= arrival]
            for rank in ready:
                c.clock[rank] = max(c.clock[rank], arrival) + 4 * floats / ADDING
            if not ready:
                continue
            waiting.difference_update(ready)
            end = c.start(floats, ready)
            if not waiting:
                self.scattered.remove(bucket)
                self.gathered.append(end)

    def finish(self):
        c = self.cluster
        self.look(wait=True)
        for end in self.gathered:
            c.clock = [max(at, end) for at in c.clock]
        self.gathered.clear()


def paired(layers):
    """Batchnorms whose outputs are added, of which the later could exchange for both: {earlier: later}."""
    pairs = {}
    for layer in layers:
        both = sorted(layer["inputs"])
        if layer["op"] == "add" and len(both) == 2 and all(is_batchnorm(layers[i]) for i in both):
            pairs[both[0]] = both[1]
    return pairs


def play(of_net, samples, ranks, network, args, local=False, pairs=False, halving=False, per_node=1, eager=True):
    """Seconds of a step with so many samples a rank."""
    layers = of_net["layers"]
    speed = args.cores * args.together / per_node
    forward, backward = (at_batch(of_net, part, samples) for part in ("forward", "backward"))
    outside = at_batch(of_net, "outside", samples)[0]
    ends = {layer: floats for floats, layer in buckets(layers, local)}
    pair = paired(layers) if pairs else {}
    sizes = {i: channels(layer) for i, layer in enumerate(layers) if is_synchronized(layer, local)}
    for earlier, later in pair.items():
        sizes[later] += sizes.pop(earlier)
    unsynchronized = sum(channels(layer) for layer in layers if is_batchnorm(layer)) if local else 0
    cluster = Cluster(ranks, network, args, halving, per_node)
    exchange = Exchange(cluster)
    for _ in range(args.steps):
        for i, seconds in enumerate(forward):
            cluster.compute(seconds / speed)
            if i in sizes:
                cluster.merge(MOMENTS * sizes[i])
        cluster.merge(TOTALS)
        for i in reversed(range(len(layers))):
            cluster.compute(backward[i] / speed)
            if i in sizes:
                cluster.merge(SUMS * sizes[i])
            if i in ends and ranks > 1 and eager:
                exchange.start(ends[i])
            exchange.look()
        if not eager and ranks > 1:
            for floats in ends.values():
                exchange.start(floats)
        exchange.finish()
        if unsynchronized:
            cluster.merge(MOMENTS * unsynchronized)
        cluster.compute(outside / speed)
    return max(cluster.clock) / args.steps


def efficiency(of_net, mode, samples, nodes, network, args, per_node=1, **how):
    """samples: a node (weak), or of all (strong). Against one node that computes alone, without others."""
    local = samples if mode == "weak" else samples / nodes
    alone = play(of_net, local if mode == "weak" else samples, 1, network, args)
    step = play(of_net, local / per_node, nodes * per_node, network, args, per_node=per_node, **how)
    return alone / step / (1 if mode == "weak" else nodes), step


def percent(share):
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def scale_table(times, mode, args):
    rows = []
    for name in args.net or times:
        samples = args.weak if mode == "weak" else args.strong
        for label, network in NETWORKS.items():
            cells = []
            for nodes in args.nodes:
                share, step = efficiency(times[name], mode, samples, nodes, network, args)
                cells.append(f"{percent(share)} ({float(f'{1e3 * step:.3g}'):,g} ms)")
            rows.append([name, label, samples, *cells])
    table(["net", "network", "samples a node" if mode == "weak" else "samples", *(f"{n:,}" for n in args.nodes)], rows)


REMEDIES = {
    "as it is": {},
    "nothing overlapped": {"eager": False},
    "shortcut pairs merged": {"pairs": True},
    "gradients by halving": {"halving": True},
    "--bn local": {"local": True},
    "--bn local, gradients by halving": {"local": True, "halving": True},
}


def remedy_table(times, mode, args):
    rows = []
    for name in args.net or times:
        samples = args.weak if mode == "weak" else args.strong
        for word, how in REMEDIES.items():
            cells = [percent(efficiency(times[name], mode, samples, nodes, network, args, **how)[0])
                     for network in NETWORKS.values() for nodes in args.nodes if nodes > 1]
            rows.append([name, word, *cells])
        if mode == "weak":
            for factor in (4, 16):
                cells = [percent(efficiency(times[name], mode, factor * samples, nodes, network, args)[0])
                         for network in NETWORKS.values() for nodes in args.nodes if nodes > 1]
                rows.append([name, f"{factor} times the samples a node", *cells])
        cells = [percent(efficiency(times[name], mode, samples, nodes, network, args, per_node=args.cores)[0])
                 if nodes * args.cores <= 1024 else "" for network in NETWORKS.values() for nodes in args.nodes if nodes > 1]
        rows.append([name, f"the contrary: {args.cores} ranks a node", *cells])
    table(["net", "what is done", *(f"{nodes:,} nodes, {label}" for label in NETWORKS for nodes in args.nodes if nodes > 1)], rows)


def simulate(args):
    times = json.loads(pathlib.Path(args.times).read_text())
    unknown = [name for name in args.net or [] if name not in times]
    if unknown:
        sys.exit(f"{args.times} has no times of {unknown[0]}; it has {', '.join(times)}")
    show = remedy_table if args.remedies else scale_table
    for mode in ("weak", "strong"):
        print("Weak scaling\n" if mode == "weak" else "Strong scaling\n")
        show(times, mode, args)


def numbers(text):
    found = [int(word) for word in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evenkeel", default=str(ROOT / "build/release/evenkeel"), help="the command")
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("traffic", help="messages and bytes of a step")
    part.add_argument("nets", nargs="+")
    part.add_argument("--ranks", type=numbers, default=[2, 3, 4, 8])
    part.add_argument("--bn", choices=["sync", "local"], default="sync")
    part.add_argument("--json", action="store_true")
    part.set_defaults(run=traffic)
    part = parts.add_parser("measure", help="times of a net's layers")
    part.add_argument("nets", nargs="+")
    part.add_argument("--times", required=True)
    part.add_argument("--batches", type=numbers, default=[2, 16, 32, 128])
    part.add_argument("--seconds", type=float, default=2)
    part.set_defaults(run=measure)
    part = parts.add_parser("simulate", help="efficiencies of many nodes")
    part.add_argument("--times", default=str(ROOT / "bench/scaling.json"))
    part.add_argument("--net", action="append")
    part.add_argument("--nodes", type=numbers, default=[1, 2, 4, 8, 64, 1024])
    part.add_argument("--cores", type=int, default=16, help="of a node")
    part.add_argument("--together", type=float, default=0.75, help="the share of its cores' speed that a node has")
    part.add_argument("--jitter", type=float, default=0.02, help="deviation of a layer's time, as a share of it")
    part.add_argument("--steps", type=int, default=3)
    part.add_argument("--seed", type=int, default=1)
    part.add_argument("--strong", type=int, default=1024, help="samples of a step of all nodes")
    part.add_argument("--weak", type=int, default=128, help="samples a node")
    part.add_argument("--remedies", action="store_true", help="what would be done, instead")
    part.set_defaults(run=simulate)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
