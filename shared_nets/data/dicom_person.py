"""What a DICOM header tells of a person's body: age, sex, height, weight; never who the person is."""

from __future__ import annotations

from datetime import date

from shared_nets.data.dicom_header import DicomHeader

#: Name of a fact that stands for PatientAge where that is missing: age at the study by the two dates.
AGE_FROM_DATES = "AgeFromDates"
_OLDEST_YEARS = 120


def person_facts(header: DicomHeader) -> dict[str, str]:
    """Gather what clinical values can be filled up from.

    Args:
        header: of an image.

    Returns:
        ``PatientAge``, ``PatientSex``, ``PatientSize`` (m) and ``PatientWeight`` (kg), as written, where they
        are there; where only the dates of birth and study tell the age, :data:`AGE_FROM_DATES` in DICOM's
        form (``049Y``). The dates themselves are left out.
    """
    keywords = ("PatientAge", "PatientSex", "PatientSize", "PatientWeight")
    facts = {keyword: header.text(keyword) for keyword in keywords if header.text(keyword)}
    if "PatientAge" not in facts:
        years = _years_between(header.text("PatientBirthDate"), header.text("StudyDate"))
        if years is not None:
            facts[AGE_FROM_DATES] = f"{years:03d}Y"
    return facts


def _years_between(birth: str, study: str) -> int | None:
    """Count whole years; ``None`` where a date is missing or odd, or the age is none of a person."""
    born, seen = _date(birth), _date(study)
    if born is None or seen is None:
        return None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return years if 0 <= years <= _OLDEST_YEARS else None


def _date(text: str) -> date | None:
    if len(text) != 8 or not (text.isascii() and text.isdigit()):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
