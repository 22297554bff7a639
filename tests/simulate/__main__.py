"""`python -m tests.simulate --seeds 2000 [--first N]`: runs seeds, prints the story of the first that fails."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter

from paglets.testing.simulation.seen import Seen
from paglets.testing.simulation.world import Simulation


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--story", action="store_true", help="print the story of every seed")
    parser.add_argument("--keep-going", action="store_true", help="count failing seeds instead of stopping at one")
    parser.add_argument("--seen", action="store_true", help="say what happened to bytes, and in how many seeds")
    options = parser.parse_args(argv)
    # Little of a run is in cycles, and a run is soon over: they need not be looked for as often as usual.
    gc.set_threshold(50_000, 20, 50)
    began, failed, events = time.monotonic(), [], 0
    seen: Counter[Seen] = Counter()
    for seed in range(options.first, options.first + options.seeds):
        simulation = Simulation(seed)
        result = simulation.run()
        simulation.close()
        events += result.events
        seen.update(what for what, times in result.seen.items() if times)
        if options.story or (result.violations and not options.keep_going):
            print(result.story.text())
        if result.violations:
            failed.append(seed)
            print(f"seed {seed}: {len(result.violations)} violations")
            for text in result.violations[:10]:
                print(f"  {text[:1500]}")
            if not options.keep_going:
                print(f"again: python -m tests.simulate --first {seed} --seeds 1")
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
