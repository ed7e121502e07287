"""Pairs a second with what concerns single pictures done once, against doing it for every pair; and which pairs.

    python benchmarks/pair_inference.py                   # everything, half an hour on a busy core
    python benchmarks/pair_inference.py --parts speed --cases small --repeats 5

Speed: a complete symmetric graph. `infer_pairs` encodes each picture once, and each head looks at it alone once. After
each batch of pairs that it has decoded, the same pairs run through the network whole, and through decoders and whole
heads from tokens encoded once, so that all ways take turns on a machine whose speed drifts. Weights are random: they do
not matter here.
Retrieval: how many of a picture's best-overlapping partners `alignment.retrieval` finds in worlds never trained on.

Writes JSON and prints the tables (Markdown). Each case says by which command, when and on what it was measured; cases
that are not asked for stay in the file as they are.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manyview.alignment.pairs import make_pairs
from manyview.alignment.retrieval import NEIGHBOURS, pairs_by_similarity, similarity
from manyview.files import write_json
from manyview.methods.model import versions
from manyview.methods.pair_inference import encode_pictures, infer_pairs
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.families import empty_network
from manyview.training.data import FIRST_HELD_OUT_SEED
from manyview.training.recipes import SMALL_PAIR_NETWORK
from manyview.worlds import WorldSettings, overlap, render_worlds
from model_card import processor

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "pair_inference.json"
CASES = {
    "small": (SMALL_PAIR_NETWORK, (96, 128), (6, 12)),
    "released, linear head": (Dust3RConfig(head="linear"), (224, 224), (6,)),
    "released, DPT head": (Dust3RConfig(), (224, 224), (6,)),
}
EXTRAPOLATED = (12,)  # numbers of pictures computed from the seconds of a picture and of a pair, where not measured
RETRIEVAL_SEED = FIRST_HELD_OUT_SEED + 3_000_000
PATHS = ("orbit", "walk", "handheld", "photographs")
SPREADS = (1.0, 1.5, 2.0)
VIEWS = (24, 32, 40)
PARTNERS, LEAST_OVERLAP = 5, 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["speed", "retrieval"], choices=["speed", "retrieval"])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=3, help="rounds over a graph, and of each part of a network")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    command = shlex.join(["python", "benchmarks/pair_inference.py", *(arguments or sys.argv[1:])])
    if "speed" in options.parts:
        for name in options.cases:
            record.setdefault("speed", {})[name] = circumstances(command) | measure_case(name, options.repeats)
    if "retrieval" in options.parts:
        record["retrieval"] = circumstances(command) | measure_retrieval()
    write_json(options.out, record)
    print(tables(record))


def circumstances(command: str) -> dict[str, Any]:
    """By what, when and on what something is measured."""
    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "hardware": {"processor": processor(), "threads": torch.get_num_threads(), "device": "cpu"},
        "versions": versions(),
    }


# ------------------------------------------------------------------ speed
def measure_case(name: str, repeats: int) -> dict[str, Any]:
    """Seconds of the parts of a network, and pairs a second over whole graphs."""
    config, size, numbers = CASES[name]
    network = random_network(config)
    parts = seconds_of_parts(network, size, repeats)
    graphs = [measure_graph(network, size, views, repeats) for views in numbers]
    graphs += [extrapolate(graphs[0], parts, views) for views in EXTRAPOLATED if views not in numbers]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"picture_size": list(size), "parameters": parameters, "seconds_of_parts": parts, "graphs": graphs}


def random_network(config: Dust3RConfig) -> Dust3R:
    """Weights of the usual magnitude."""
    network = empty_network(config).to_empty(device="cpu").eval().requires_grad_(False)
    assert isinstance(network, Dust3R)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2:
            bound = (3 / parameter[0].numel()) ** 0.5 * (0.2 if "output.4" in name else 1)
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    for head in (network.first_head, network.second_head):
        head.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network


def random_pictures(views: int, size: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, *size, generator=generator) * 2 - 1 for _ in range(views)]


def seconds_of_parts(network: Dust3R, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Medians, in batches of two.

    For one picture: the encoder, and what both heads make of it alone. For one pair: both decoders, both whole heads.
    """
    pictures = torch.cat(random_pictures(2, size))
    rounds = []
    with torch.inference_mode():
        tokens, grid = network.encode(pictures), network.grid(pictures)
        for _ in range(repeats + 1):
            encoder = seconds(lambda: network.encode(pictures))
            alone = seconds(lambda: [network.prepare(tokens, grid, side=side) for side in (0, 1)])
            with stop_watch(network.first_head, network.second_head) as heads:
                decode = seconds(lambda: network.decode(tokens, tokens, grid, grid))
            rounds.append((encoder / 2, alone / 2, (decode - sum(heads)) / 2, sum(heads) / 2))
    encoder, alone, decoders, heads = (statistics.median(values) for values in zip(*rounds[1:], strict=True))
    return {
        "encoder, a picture": round(encoder, 4),
        "heads on a picture alone": round(alone, 4),
        "decoders, a pair": round(decoders, 4),
        "heads, a pair": round(heads, 4),
        "most_times_faster": round((2 * encoder + decoders + heads) / (decoders + heads - alone), 2),
    }


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def stop_watch(*modules: torch.nn.Module) -> Iterator[list[float]]:
    """Seconds of every call of the modules while the context lasts."""
    starts: list[float] = []
    spent: list[float] = []
    handles = [module.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter())) for module in modules]
    handles += [
        module.register_forward_hook(lambda *_: spent.append(time.perf_counter() - starts[-1])) for module in modules
    ]
    yield spent
    for handle in handles:
        handle.remove()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Seconds of all pairs in three ways that took turns, and how far the results of the first are from the last's.

    Attributes:
        once: `infer_pairs`: each picture encoded once, and seen by each head once.
        plain_decode: each picture encoded once, whole heads for every pair.
        every_pair: both pictures encoded for every pair, whole heads.
        difference: largest, relative to the largest value.
    """

    once: float
    plain_decode: float
    every_pair: float
    difference: float


def measure_graph(network: Dust3R, size: tuple[int, int], views: int, repeats: int) -> dict[str, Any]:
    """All pairs of so many pictures; the median of the repeats."""
    edges = make_pairs(views, "complete")
    turns = [take_turns(network, random_pictures(views, size), edges) for _ in range(repeats)]
    once, plain, every = (
        statistics.median(getattr(turn, way) for turn in turns) for way in ("once", "plain_decode", "every_pair")
    )
    return graph_row(views, once, plain, every, "measured") | {
        "times_faster_in_each_round": [round(turn.every_pair / turn.once, 2) for turn in turns],
        "largest_relative_difference": max(turn.difference for turn in turns),
    }


def take_turns(network: Dust3R, pictures: list[Tensor], edges: np.ndarray) -> Turn:
    """After each batch of pairs of `infer_pairs`, the same pairs in the two other ways; those keep no results."""
    here = {"device": torch.device("cpu"), "dtype": torch.float32}
    grid = network.grid(pictures[0])
    whole: list[Tensor] = []
    start = time.perf_counter()
    tokens = encode_pictures(network, pictures, **here).tokens
    plain, every = time.perf_counter() - start, 0.0

    def other_ways(done: int, total: int | None, what: str) -> None:
        nonlocal plain, every
        if what != "pairs":
            return
        sides = edges[len(whole) : done].T.tolist()
        with torch.inference_mode():
            start = time.perf_counter()
            result = network([torch.cat([pictures[view] for view in side]) for side in sides])
            middle = time.perf_counter()
            network.decode(*(torch.stack([tokens[view] for view in side]) for side in sides), grid, grid)
        every += middle - start
        plain += time.perf_counter() - middle
        whole.extend(result.points[1])

    encoding, start = plain, time.perf_counter()
    found = infer_pairs(network, pictures, edges, store="memory", progress=other_ways, **here)
    once = time.perf_counter() - start - every - (plain - encoding)
    pairs = zip((second for _, second in found.pairs.points), whole, strict=True)
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    return Turn(once=once, plain_decode=plain, every_pair=every, difference=difference)


def extrapolate(measured: dict[str, Any], parts: dict[str, float], views: int) -> dict[str, Any]:
    """From a measured graph: what is done for single pictures grows with the pictures, the rest with the pairs."""
    pairs = views * (views - 1)

    def more(seconds: float, a_picture: float) -> float:
        return views * a_picture + pairs * (seconds - measured["views"] * a_picture) / measured["pairs"]

    encoder = parts["encoder, a picture"]
    return graph_row(
        views,
        more(measured["seconds_encoded_once"], encoder + parts["heads on a picture alone"]),
        more(measured["seconds_plain_decode"], encoder),
        more(measured["seconds_every_pair"], 0.0),
        f"from {measured['views']} pictures",
    )


def graph_row(views: int, once: float, plain: float, every: float, how: str) -> dict[str, Any]:
    pairs = views * (views - 1)
    return {
        "views": views,
        "pairs": pairs,
        "how": how,
        "seconds_encoded_once": round(once, 3),
        "seconds_plain_decode": round(plain, 3),
        "seconds_every_pair": round(every, 3),
        "pairs_per_second_encoded_once": round(pairs / once, 3),
        "pairs_per_second_plain_decode": round(pairs / plain, 3),
        "pairs_per_second_every_pair": round(pairs / every, 3),
        "times_faster": round(every / once, 2),
        "times_faster_plain_decode": round(every / plain, 2),
    }


# ------------------------------------------------------------------ retrieval
def measure_retrieval() -> dict[str, Any]:
    """Means over worlds of how well partners are found: by `similarity`, by mean tokens, and by chance."""
    from manyview.networks.checkpoints.find import find_network

    encoder = find_network("manyview-small")[0].encoder
    kinds: dict[str, Callable[[list[Tensor]], np.ndarray]] = {
        "votes of tokens": similarity,
        "mean token": mean_token_similarity,
        "by chance": chance,
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for number, (path, spread, views) in enumerate((p, s, v) for p in PATHS for s in SPREADS for v in VIEWS):
        settings = WorldSettings(paths=(path,), spread=spread)
        world = render_worlds([RETRIEVAL_SEED + number], views, (96, 128), settings)
        seen = overlap(world)[0].numpy()
        truth = np.minimum(seen, seen.T)
        np.fill_diagonal(truth, -1)
        with torch.inference_mode():
            tokens = [encoder(picture[None] * 2 - 1)[0] for picture in world.images[0]]
        for name, kind in kinds.items():
            rows[name].append(judge(kind(tokens), truth))
    worlds = len(rows["by chance"])
    means = {name: {key: round(mean_of(found, key), 3) for key in found[0]} for name, found in rows.items()}
    return {"worlds": worlds, "views": list(VIEWS), "neighbours": NEIGHBOURS, "methods": means}


def mean_of(rows: Sequence[dict[str, float]], key: str) -> float:
    return float(np.nanmean([row[key] for row in rows]))


def mean_token_similarity(tokens: list[Tensor]) -> np.ndarray:
    """Cosine of the mean tokens, centred over the collection."""
    means = torch.stack([picture.mean(0) for picture in tokens])
    unit = F.normalize(means - means.mean(0), dim=-1)
    return (unit @ unit.T).double().numpy()


def chance(tokens: list[Tensor]) -> np.ndarray:
    values = np.random.default_rng(0).random((len(tokens), len(tokens)))
    return values + values.T


def judge(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Recall of the best partners, and what the graph of pairs is worth; truth (N, N) is -1 on its diagonal."""
    views = len(truth)
    others = np.array(found)
    np.fill_diagonal(others, -np.inf)
    order = np.argsort(-others, axis=1, kind="stable")
    best = [row[truth[view, row] > LEAST_OVERLAP] for view, row in enumerate(np.argsort(-truth)[:, :PARTNERS])]
    edges = pairs_by_similarity(found)
    good = truth[tuple(edges.T)] > LEAST_OVERLAP
    recalls = {
        f"recall_at_{count}": float(
            np.mean([np.isin(row, order[view, :count]).mean() for view, row in enumerate(best) if len(row)])
        )
        for count in (PARTNERS, 2 * PARTNERS)
    }
    return {**recalls, "pairs_that_overlap": float(good.mean()), "pairs_a_picture": len(edges) / views}


# ------------------------------------------------------------------ tables
def tables(record: dict[str, Any]) -> str:
    """What was measured, in Markdown."""
    return "\n\n".join(
        part
        for part in (
            speed_table(record["speed"]) if "speed" in record else "",
            retrieval_table(record["retrieval"]) if "retrieval" in record else "",
        )
        if part
    )


def speed_table(cases: dict[str, Any]) -> str:
    lines = [
        "| network | pictures | pairs | encoded for every pair | encoded once | heads, too, see a picture alone once "
        "| at most | encoder, a picture | heads on it alone | decoders, a pair | heads, a pair |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, case in cases.items():
        height, width = case["picture_size"]
        parts = case["seconds_of_parts"]
        for row in case["graphs"]:
            plain, times = row["pairs_per_second_plain_decode"], row["times_faster_plain_decode"]
            how = "" if row["how"] == "measured" else f" ({row['how']})"
            lines.append(
                f"| {name}, {width}x{height} | {row['views']}{how} | {row['pairs']} "
                f"| {row['pairs_per_second_every_pair']:.2f} pairs/s "
                f"| {plain:.2f} pairs/s, {times:.2f} x faster "
                f"| {row['pairs_per_second_encoded_once']:.2f} pairs/s, {row['times_faster']:.2f} x faster "
                f"| {parts['most_times_faster']:.2f} x | {1000 * parts['encoder, a picture']:.0f} ms "
                f"| {1000 * parts['heads on a picture alone']:.0f} ms | {1000 * parts['decoders, a pair']:.0f} ms "
                f"| {1000 * parts['heads, a pair']:.0f} ms |"
            )
    return "\n".join([*lines, "", *(source(name, case) for name, case in cases.items())])


def source(name: str, case: dict[str, Any]) -> str:
    """By which command, when and on what a case was measured."""
    hardware, made = case["hardware"], case["made"]
    return (
        f"- {name}: `{case['command']}`, {made[:10]}, {hardware['processor']}, {hardware['threads']} thread(s), "
        f"torch {case['versions']['torch']}."
    )


def retrieval_table(measured: dict[str, Any]) -> str:
    lines = [
        f"| {measured['worlds']} worlds, {min(measured['views'])} to {max(measured['views'])} pictures "
        "| five best partners among five most similar | among ten | chosen pairs that overlap | pairs a picture |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in measured["methods"].items():
        lines.append(
            f"| {name} | {row['recall_at_5']:.0%} | {row['recall_at_10']:.0%} | {row['pairs_that_overlap']:.0%} "
            f"| {row['pairs_a_picture']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
