"""The rows of others on one stream, computed in a process of their own; and the traps."""

from __future__ import annotations

import numpy as np

from agentic_flywheel.likeness import Profile
from agentic_flywheel.policy.similarity.profiles import floor_of
from similar.baselines import EXACT_ONLY, SWEPT, Neighbourhood, fixed_cut
from similar.counts import Run
from similar.policies import DEFAULTS, VCACHE_BUDGETS
from similar.product import Place
from similar.remembered import RememberedVectors, real_embedder
from similar.streams import Stream
from similar.vcache import vcache


def _neighbourhood(stream: Stream, place: Place) -> tuple[Neighbourhood, str]:
    """The stream with its vectors, and the embedder's calibration."""
    vectors = RememberedVectors(real_embedder(place.embedder), place.cache)
    rows = np.concatenate([vectors.embed([asked.text]) for asked in stream.asked])
    vectors.close()
    return Neighbourhood(stream, rows), vectors.calibration


def run_others(stream: Stream, place: Place) -> list[Run]:
    """Exact only; the cuts that others use and ours without guards; vCache."""
    near, calibration = _neighbourhood(stream, place)
    cuts: dict[float, list[str]] = {cut: [whose] for cut, whose in DEFAULTS.items()}
    for profile in Profile:
        cuts.setdefault(floor_of(profile, calibration) or 0.97, []).append(f"{profile} without guards")
    runs = [fixed_cut(near, EXACT_ONLY, "exact only")]
    runs += [fixed_cut(near, cut, f"cosine {cut:.3g} ({'; '.join(cuts[cut])})") for cut in sorted(cuts)]
    runs += [vcache(near, budget, f"vCache, {budget:.0%} of requests", seed=place.seed) for budget in VCACHE_BUDGETS]
    return runs


def run_swept(stream: Stream, place: Place) -> dict[float, Run]:
    """Every single cut that could have been chosen."""
    near, _ = _neighbourhood(stream, place)
    return {
        cut: Run(policy=f"cosine {cut}", outcomes=fixed_cut(near, cut, "").outcomes) for cut in (*SWEPT, EXACT_ONLY)
    }


def read_traps() -> list[tuple[str, str]]:
    """Pairs of questions that one edit makes different questions, from the tests of the guards: those that guards were
    tuned on, and those that were not."""
    from traps import HELD_OUT, TUNED, traps

    return [(pair.one, pair.other) for table in (TUNED, HELD_OUT) for pair in traps(table)]


def trap_similarities(traps: list[tuple[str, str]], vectors: RememberedVectors) -> list[float]:
    """How near the two questions of each trap are."""
    return [float(np.dot(*vectors.embed(pair))) for pair in traps]
