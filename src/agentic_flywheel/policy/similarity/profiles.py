"""Which terms hold for a flow's similar questions: mode, profile, floor, budget; and who said so.

Invariant: nothing is ever served below a floor that was measured for the embedder in use, or that an operator wrote
down; where there is neither, nothing is served. Of several rules the most particular one holds: a person's choice at
run time, the flow's registry entry, the settings `similar.*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from agentic_flywheel.likeness import Profile, SimilarMode, SimilarPolicy, Terms
from agentic_flywheel.policy.similarity.budget import Standing

#: Least similarity per profile, by calibration of the embedder. Measured with all guards on question pairs
#: (docs/similar-questions.md): wrong of hits .97: 0.9 %, .95: 1.7 %; .90 only for narrow flows. The int8 build gives
#: pairs above .9 a similarity that is lower by .007 on average.
FLOORS: Mapping[str, Mapping[Profile, float]] = MappingProxyType(
    {
        "minilm-fp32": MappingProxyType({Profile.STRICT: 0.97, Profile.BALANCED: 0.95, Profile.FAQ: 0.90}),
        "minilm-int8": MappingProxyType({Profile.STRICT: 0.963, Profile.BALANCED: 0.943, Profile.FAQ: 0.893}),
    }
)
#: The same where the other neighbours agree with the nearest. From .86 on .3 to .8 % of such pairs had different
#: answers even without guards on BANKING77, 1.8 % at .84 (docs/decisions/0022); on questions about everything (QQP)
#: what `strict` served between .86 and .90 was wrong too often.
AGREED_FLOORS: Mapping[str, Mapping[Profile, float]] = MappingProxyType(
    {
        "minilm-fp32": MappingProxyType({Profile.STRICT: 0.90, Profile.BALANCED: 0.88, Profile.FAQ: 0.86}),
        "minilm-int8": MappingProxyType({Profile.STRICT: 0.893, Profile.BALANCED: 0.873, Profile.FAQ: 0.853}),
    }
)
#: The floor shown for an embedder without a measured one; nothing is served there.
UNMEASURED = 1.0

_PERSON, _REGISTRY, _SETTINGS = "a person's choice", "the registry", "the settings"
_RANKS = {_PERSON: 2, _REGISTRY: 1, _SETTINGS: 0}


class Values(Protocol):
    """Settings by dotted name, as `settings.Settings` has them."""

    def __getitem__(self, name: str, /) -> Any: ...


def floor_of(profile: Profile, calibration: str, standing: Standing = Standing.ALONE) -> float | None:
    """The profile's least similarity on the scale of an embedder; None where none was measured for it.

    >>> floor_of(Profile.STRICT, "minilm-fp32"), floor_of(Profile.STRICT, "")
    (0.97, None)
    """
    floors = (AGREED_FLOORS if standing is Standing.AGREED else FLOORS).get(calibration)
    return None if floors is None else floors[profile]


def floors_of(terms: Terms, calibration: str) -> dict[Standing, float]:
    """The least similarity by standing. A floor that somebody wrote down holds for every standing alike.

    >>> terms = Terms(mode=SimilarMode.FIXED, profile=Profile.FAQ, floor=0.9, max_error=0.01, audit_share=0.05)
    >>> [floors_of(terms, "minilm-fp32")[standing] for standing in Standing]
    [0.86, 0.9, 0.9]
    """
    floors = dict.fromkeys(Standing, terms.floor)
    agreed = floor_of(terms.profile, calibration, Standing.AGREED)
    if agreed is not None and terms.floor == floor_of(terms.profile, calibration):
        floors[Standing.AGREED] = agreed
    return floors


def terms_of(
    settings: Values,
    *,
    registry: SimilarPolicy | None = None,
    overrides: SimilarPolicy | None = None,
    calibration: str = "",
) -> Terms:
    """What holds for one flow; `settings` has the values of `similar.*` by dotted name.

    `floor` of the settings counts as none where it is 0. A written floor replaces the profile's, unless the profile was
    named by a more particular rule: then it can only raise it ("strict" chosen for one flow stays strict, whatever
    the settings allow in general). With an embedder without measured floors, nothing is served without a written one.
    """
    general = SimilarPolicy(
        mode=SimilarMode(settings["similar.mode"]),
        profile=Profile(settings["similar.profile"]),
        max_error=float(settings["similar.max_error"]),
        floor=float(settings["similar.floor"]) or None,
        audit_share=float(settings["similar.audit_share"]),
    )
    rules = [
        (origin, rule)
        for origin, rule in ((_PERSON, overrides), (_REGISTRY, registry), (_SETTINGS, general))
        if rule is not None
    ]

    def chosen(name: str) -> tuple[Any, str]:
        for origin, rule in rules:
            value = getattr(rule, name)
            if value is not None:
                return value, origin
        return None, ""

    mode, mode_by = chosen("mode")
    profile, profile_by = chosen("profile")
    max_error, error_by = chosen("max_error")
    audit_share, _ = chosen("audit_share")
    written, floor_by = chosen("floor")
    floor, floor_words = _floor(profile, profile_by, written, floor_by, calibration)
    mode_words = f"mode {mode} by {mode_by}"
    if floor is None:
        floor = UNMEASURED
        if mode in {SimilarMode.LEARN, SimilarMode.FIXED}:
            mode, mode_words = SimilarMode.SHADOW, f"mode shadow instead of {mode}: write a floor to have it learn"
    return Terms(
        mode=mode,
        profile=profile,
        floor=floor,
        max_error=max_error,
        audit_share=audit_share,
        origin=f"{mode_words}; profile {profile} by {profile_by}; {floor_words}; max_error {max_error:g} by {error_by}",
    )


def _floor(
    profile: Profile, profile_by: str, written: float | None, floor_by: str, calibration: str
) -> tuple[float | None, str]:
    """The floor in force and what to say of it."""
    measured = floor_of(profile, calibration)
    if written is None:
        if measured is None:
            return None, "no floor is measured for this embedder"
        return measured, f"floor {measured:g} of the profile ({calibration})"
    if measured is not None and measured > written and _RANKS[profile_by] > _RANKS[floor_by]:
        return measured, f"floor {measured:g} of the profile, above {written:g} by {floor_by}"
    return written, f"floor {written:g} by {floor_by}"
