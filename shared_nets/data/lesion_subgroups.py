"""By what lesion classifiers are compared: sex, age band and site, as data sets tell them."""

from __future__ import annotations

import math

#: Lower ends of the age bands in years, and their names.
AGE_BANDS: tuple[tuple[float, str], ...] = ((0.0, "under 40"), (40.0, "40 to 59"), (60.0, "60 or more"))
_NOT_KNOWN = {"", "unknown", "nan", "none"}


def lesion_subgroup(*, sex: str | None, age_years: float | None, site: str | None) -> dict[str, str]:
    """Say to which subgroups a lesion belongs.

    Args:
        sex: ``female`` or ``male``; anything else is unknown.
        age_years: age; ``None`` or NaN is unknown.
        site: part of the body, in the words of the data set.

    Returns:
        Those of ``sex``, ``age_band`` and ``site`` that are known.
    """
    out: dict[str, str] = {}
    if sex is not None and sex.strip().lower() in ("female", "male"):
        out["sex"] = sex.strip().lower()
    if age_years is not None and not math.isnan(age_years) and age_years >= 0.0:
        out["age_band"] = [name for lowest, name in AGE_BANDS if age_years >= lowest][-1]
    if site is not None and site.strip().lower() not in _NOT_KNOWN:
        out["site"] = site.strip().lower()
    return out
