"""The policies that are put side by side, and what the product is told for each of ours."""

from __future__ import annotations

import msgspec

#: What other caches serve from if nothing else is said, as a similarity. RedisVL's distance .1 and langchain-redis's
#: distance .2 are cosine distances; GPTCache's .8 is on a scale of its own, of which the cosine is the nearest thing.
DEFAULTS = {0.80: "default of langchain-redis, GPTCache", 0.90: "default of RedisVL"}
#: vCache's budgets, on wrong answers of all requests.
VCACHE_BUDGETS = (0.01, 0.02, 0.05)


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the product: its name, and the settings `similar.*` that differ from the defaults."""

    name: str
    profile: str
    mode: str = "fixed"
    max_error: float | None = None
    floor: float = 0.0
    perfect: bool = False  # with a comparer of answers that makes no mistakes, instead of the product's own

    def settings(self) -> dict[str, object]:
        given: dict[str, object] = {"similar.profile": self.profile, "similar.mode": self.mode}
        if self.max_error is not None:
            given["similar.max_error"] = self.max_error
        if self.floor:
            given["similar.floor"] = self.floor
        return given


#: The floor that an operator would write down to have a flow of narrow questions learn.
LEARN_FLOOR = 0.80
FIXED = tuple(Ours(name=f"**{profile}**", profile=profile) for profile in ("strict", "balanced", "faq"))
LEARN = tuple(
    Ours(name=f"**learn, {error:.0%}**", profile="faq", mode="learn", max_error=error, floor=LEARN_FLOOR)
    for error in (0.01, 0.02, 0.05)
)
LEARN_PERFECT = tuple(
    msgspec.structs.replace(policy, name=f"{policy.name} (perfect comparer)", perfect=True) for policy in LEARN
)
STRICT = FIXED[0]
