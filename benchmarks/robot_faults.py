"""What a robot does when something fails: N faults, each against what is documented.

    python benchmarks/robot_faults.py [--n 100] [--seed 0] [--only TEXT] [--json FILE]

Each fault is injected into a simulated PushT robot that moves in real time, driven by a stand-in
policy in circles at 80 px/s, with limits of 150 px/s and 800 px/s2. It counts as documented when
the state of docs/robots.md is reached and named, the agent has moved within its plans and limits by
the world's own record and is at rest where it holds or stops, what is to go on goes on, and no
process and no shared memory is left. The kinds are in `faults_kinds.py`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from faults_kinds import KINDS, Bench, Kind, Result


def main() -> None:
    """Inject them and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100, help="faults, over all kinds in turn")
    parser.add_argument("--seed", type=int, default=0, help="of when they come, and their order")
    parser.add_argument("--only", default="", help="kinds with this in their name or group")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    options = parser.parse_args()
    kinds = [one for one in KINDS if options.only in one.name or options.only in one.group]
    began_s, load = time.monotonic(), os.getloadavg()[0]
    results, problems = run(kinds, options.n, options.seed)
    lasted_s = time.monotonic() - began_s
    good = sum(one.failed is None for one in results)
    print(
        f"{len(results)} faults, {good} as documented, in {lasted_s:.0f} s"
        f" ({len(os.sched_getaffinity(0))} cores, load {load:.1f} before)\n"
    )
    print("\n".join(table(kinds, results)))
    for one in [*(f"{r.kind}: {r.failed}" for r in results if r.failed), *problems]:
        print(f"\nnot as documented: {one}")
    if options.json:
        values = {"seed": options.seed, "lasted_s": lasted_s, "left": problems}
        values["faults"] = [asdict(one) for one in results]
        options.json.write_text(json.dumps(values, indent=2))
    sys.exit(good < len(results) or bool(problems))


def run(kinds: Sequence[Kind], n: int, seed: int) -> tuple[list[Result], list[str]]:
    """So many faults, as many of each kind as of any other; and what was left at the end."""
    rng = np.random.default_rng(seed)
    chosen = sorted((i % len(kinds) for i in range(n)), key=lambda i: _order(kinds[i]))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            for i in chosen:
                results.append(bench.try_out(kinds[i], rng))
                print(f"{results[-1]}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        finally:
            problems = bench.close()
    return results, problems


def _order(kind: Kind) -> tuple[str, bool, bool]:
    """Those that can be done to the same robot follow one another."""
    return str(kind.setup), kind.wild_clock, kind.fresh


def table(kinds: Sequence[Kind], results: Sequence[Result]) -> list[str]:
    """A line for each kind."""
    heads = "fault", "state", "faults", "as documented", "after, s", "moved, px", "speed, px/s"
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|---|"]
    for kind in kinds:
        of = [one for one in results if one.kind == kind.name]
        if not of:
            continue
        good = sum(one.failed is None for one in of)
        state_s = max((one.state_s or 0.0 for one in of), default=0.0)
        cells = [kind.name, kind.state, f"{len(of)}", f"{good}", f"{state_s:.2f}"]
        cells += [f"{max(one.moved_px for one in of):.0f}", f"{max(one.speed for one in of):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
