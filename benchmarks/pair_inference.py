"""Pairs a second with every picture encoded once, against encoding both pictures of every pair; and which pairs.

    python benchmarks/pair_inference.py                                  # everything, ten minutes on two busy cores
    python benchmarks/pair_inference.py --parts speed --cases small

Speed: a complete symmetric graph. After each batch of pairs that `infer_pairs` has decoded, the same pairs run through
the network whole, so that both take turns on a machine whose speed drifts. Weights are random: they do not matter here.
Retrieval: how many of a picture's best-overlapping partners `alignment.retrieval` finds in worlds never trained on.

Writes JSON with hardware, versions and command, and prints the tables (Markdown).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from manyview.methods.pair_inference import infer_pairs
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
    parser.add_argument("--repeats", type=int, default=3, help="of the small case, and of each part of a network")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    record: dict[str, Any] = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python benchmarks/pair_inference.py", *(arguments or sys.argv[1:])]),
        "hardware": {"processor": processor(), "threads": torch.get_num_threads(), "device": "cpu"},
        "versions": versions(),
    }
    if "speed" in options.parts:
        record["speed"] = {name: measure_case(name, options.repeats) for name in options.cases}
    if "retrieval" in options.parts:
        record["retrieval"] = measure_retrieval()
    write_json(options.out, record)
    print(tables(record))


# ------------------------------------------------------------------ speed
def measure_case(name: str, repeats: int) -> dict[str, Any]:
    """Seconds of the parts of a network, and pairs a second over whole graphs."""
    config, size, numbers = CASES[name]
    network = random_network(config)
    parts = seconds_of_parts(network, size, repeats)
    graphs = [measure_graph(network, size, views, repeats if name == "small" else 1) for views in numbers]
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
    """Of the encoder for one picture, of both decoders and of both heads for one pair; in batches of two, medians."""
    pictures = torch.cat(random_pictures(2, size))
    rounds = []
    with torch.inference_mode():
        tokens, grid = network.encode(pictures), network.grid(pictures)
        for _ in range(repeats + 1):
            encoder = seconds(lambda: network.encode(pictures))
            with stop_watch(network.first_head, network.second_head) as heads:
                decode = seconds(lambda: network.decode(tokens, tokens, grid, grid))
            rounds.append((encoder / 2, (decode - sum(heads)) / 2, sum(heads) / 2))
    encoder, decoders, both_heads = (statistics.median(values) for values in zip(*rounds[1:], strict=True))
    return {
        "encoder, a picture": round(encoder, 4),
        "decoders, a pair": round(decoders, 4),
        "heads, a pair": round(both_heads, 4),
        "most_times_faster": round(1 + 2 * encoder / (decoders + both_heads), 2),
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


def measure_graph(network: Dust3R, size: tuple[int, int], views: int, repeats: int) -> dict[str, Any]:
    """All pairs of so many pictures; the median of the repeats."""
    edges = make_pairs(views, "complete")
    rounds = [take_turns(network, random_pictures(views, size), edges) for _ in range(repeats)]
    once, every, differences = (list(values) for values in zip(*rounds, strict=True))
    return graph_row(views, statistics.median(once), statistics.median(every), "measured") | {
        "times_faster_in_each_round": [round(b / a, 2) for a, b in zip(once, every, strict=True)],
        "largest_relative_difference": max(differences),
    }


def take_turns(network: Dust3R, pictures: list[Tensor], edges: np.ndarray) -> tuple[float, float, float]:
    """Seconds of all pairs with each picture encoded once, seconds with both encoded for every pair, difference."""
    whole: list[Tensor] = []
    aside = 0.0

    def run_whole(done: int, total: int | None, what: str) -> None:
        nonlocal aside
        if what != "pairs":
            return
        start = time.perf_counter()
        rows = edges[len(whole) : done]
        with torch.inference_mode():
            result = network([torch.cat([pictures[view] for view in side]) for side in rows.T.tolist()])
        aside += time.perf_counter() - start
        whole.extend(result.points[1])

    start = time.perf_counter()
    found = infer_pairs(
        network, pictures, edges, device=torch.device("cpu"), dtype=torch.float32, store="memory", progress=run_whole
    )
    total = time.perf_counter() - start
    pairs = zip((second for _, second in found.pairs.points), whole, strict=True)
    return total - aside, aside, max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def extrapolate(measured: dict[str, Any], parts: dict[str, float], views: int) -> dict[str, Any]:
    """From a measured graph: the encoder's share grows with the pictures, the rest with the pairs."""
    pairs = views * (views - 1)
    encoding = parts["encoder, a picture"]
    decode = (measured["seconds_encoded_once"] - measured["views"] * encoding) / measured["pairs"]
    whole = measured["seconds_every_pair"] / measured["pairs"]
    return graph_row(views, views * encoding + pairs * decode, pairs * whole, f"from {measured['views']} pictures")


def graph_row(views: int, once: float, every: float, how: str) -> dict[str, Any]:
    pairs = views * (views - 1)
    return {
        "views": views,
        "pairs": pairs,
        "how": how,
        "seconds_encoded_once": round(once, 3),
        "seconds_every_pair": round(every, 3),
        "pairs_per_second_encoded_once": round(pairs / once, 3),
        "pairs_per_second_every_pair": round(pairs / every, 3),
        "times_faster": round(every / once, 2),
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
        "| network | pictures | pairs | encoded for every pair | encoded once | faster | encoder, a picture "
        "| decoders, a pair | heads, a pair | at most |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, case in cases.items():
        height, width = case["picture_size"]
        parts = case["seconds_of_parts"]
        for row in case["graphs"]:
            how = "" if row["how"] == "measured" else f" ({row['how']})"
            lines.append(
                f"| {name}, {width}x{height} | {row['views']}{how} | {row['pairs']} "
                f"| {row['pairs_per_second_every_pair']:.2f} pairs/s "
                f"| {row['pairs_per_second_encoded_once']:.2f} pairs/s | {row['times_faster']:.2f} x "
                f"| {1000 * parts['encoder, a picture']:.0f} ms | {1000 * parts['decoders, a pair']:.0f} ms "
                f"| {1000 * parts['heads, a pair']:.0f} ms | {parts['most_times_faster']:.2f} x |"
            )
    return "\n".join(lines)


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
