"""Run seeds of the simulator and print the story of the first that fails.

`python -m tests.simulator --seeds 2000 [--first N]`
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.simulator.seen import Seen
from tests.simulator.world import Result, run_seed

SEEDS_AT_ONCE = 4
"""The number of seeds in one task of a process. Small tasks let all processes finish together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one seed, as one process sends it to another. `story` is empty where nobody reads it."""

    seed: int
    violations: tuple[str, ...]
    story: str
    events: int
    seen: tuple[Seen, ...]


def outcome_of(seed: int, *, story: bool) -> Outcome:
    """Run one seed. With `story`, return its story even if the seed passes."""
    result = run_seed(seed)
    return Outcome(
        seed=seed,
        violations=result.violations,
        story=result.story.text() if story or result.violations else "",
        events=result.events,
        seen=tuple(what for what, times in result.seen.items() if times),
    )


def good_run(seed: int) -> Result:
    """Run a seed in which every guarantee must hold. Raises AssertionError with its story."""
    result = run_seed(seed)
    assert not result.violations, f"seed {seed}: {result.violations}\n{result.story.text()}"
    return result


def collect_garbage_rarely() -> None:
    """Make garbage collection rare: runs are short and create few reference cycles."""
    gc.set_threshold(50_000, 20, 50)


def outcomes(seeds: range, jobs: int, *, story: bool) -> Iterator[Outcome]:
    """Yield the outcome of each seed in order, from this many processes."""
    run = partial(outcome_of, story=story)
    if jobs == 1:
        collect_garbage_rarely()
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs, initializer=collect_garbage_rarely) as pool:
        try:
            yield from pool.map(run, seeds, chunksize=SEEDS_AT_ONCE)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="in how many processes (one for each core)"
    )
    parser.add_argument("--story", action="store_true", help="print the story of every seed")
    parser.add_argument("--keep-going", action="store_true", help="count failing seeds instead of stopping at one")
    parser.add_argument("--seen", action="store_true", help="say what happened, and in how many seeds")
    options = parser.parse_args(argv)
    began, failed, events = time.monotonic(), [], 0
    seen: Counter[Seen] = Counter()
    for each in outcomes(range(options.first, options.first + options.seeds), options.jobs, story=options.story):
        events += each.events
        seen.update(each.seen)
        if options.story or (each.violations and not options.keep_going):
            print(each.story)
        if each.violations:
            failed.append(each.seed)
            print(f"seed {each.seed}: {len(each.violations)} violations")
            for text in each.violations[:10]:
                print(f"  {text[:1500]}", flush=True)
            if not options.keep_going:
                print(f"again: python -m tests.simulator --first {each.seed} --seeds 1")
                return 1
    seconds = time.monotonic() - began
    for what in Seen if options.seen else ():
        print(f"{100 * seen[what] / options.seeds:5.0f} %  {what}")
    print(
        f"{options.seeds} seeds from {options.first}, {events:,} events, {seconds:.1f} s, "
        f"{60 * options.seeds / max(seconds, 1e-9):.0f} seeds a minute, {len(failed)} failed: {failed[:50]}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
