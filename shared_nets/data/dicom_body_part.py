"""Does the header name a part of the body that the model was made for?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared_nets.data.dicom_header import DicomHeader
from shared_nets.data.dicom_wording import names
from shared_nets.refusals import InputRefused
from shared_nets.types import Finding

#: Body parts that may show a kidney, or a part of such words, for a model of the kidneys; from DICOM PS3.16
#: Annex L and what scanners write.
ABDOMEN_BODY_PARTS = (
    *("ABD", "KIDNEY", "RENAL", "NEPHR", "URO", "URETER", "ADRENAL", "LIVER", "HEPA", "SPLEEN", "PANCREAS"),
    *(
        "GALLBLADDER",
        "STOMACH",
        "DUODENUM",
        "COLON",
        "AORTA",
        "RETROPERIT",
        "LSPINE",
        "TRUNK",
        "TORSO",
        "BODY",
    ),
)
#: Regions of the body by name.
BODY_REGIONS: dict[str, tuple[str, ...]] = {"abdomen": ABDOMEN_BODY_PARTS}
#: Body parts that have nothing in common with the trunk; DICOM PS3.16 Annex L and what scanners write.
FAR_BODY_PARTS = frozenset(
    (
        *("HEAD", "BRAIN", "CEREBELLUM", "CIRCLEOFWILLIS", "SKULL", "SCALP", "FACE", "ZYGOMA", "NOSE"),
        *("SINUS", "SINUSES", "ORBIT", "ORBITS", "EYE", "EAR", "IAC", "TEMPORALBONE", "JAW", "TMJ"),
        *("MAXILLA", "MANDIBLE", "TEETH", "MOUTH", "TONGUE", "PAROTID", "HEADNECK", "NECK", "CSPINE"),
        *("CERVICALSPINE", "CAROTID", "LARYNX", "PHARYNX", "THYROID", "SHOULDER", "CLAVICLE", "HUMERUS"),
        *("ARM", "UPARM", "ELBOW", "FOREARM", "WRIST", "HAND", "FINGER", "THUMB", "LEG", "THIGH", "FEMUR"),
        *("KNEE", "PATELLA", "CALF", "TIBIA", "FIBULA", "ANKLE", "CALCANEUS", "FOOT", "TOE", "EXTREMITY"),
        *("UPPEREXTREMITY", "LOWEREXTREMITY"),
    )
)
#: Words of free text, such as a protocol's name, that make one look twice.
_FAR_WORDS = re.compile(
    r"\b(HEAD|BRAIN|SKULL|CRANI\w*|CEREBR\w*|SINUS(?:ES)?|ORBITS?|NECK|KNEE|ANKLE|FOOT|WRIST|HAND)\b"
)
_WIDE_WORDS = re.compile(r"\b(TO|WHOLE|TOTAL)\b")  # skull base to thigh


def check_body_part(headers: Sequence[DicomHeader], allowed: Sequence[str] | None) -> list[Finding]:
    """Compare Body Part Examined with what the model was made for; look at free text only when it is empty.

    Args:
        headers: of the images of one series.
        allowed: accepted words, of which a part of the tag is enough; ``None`` does not look.

    Returns:
        A warning ``WRONG_BODY_PART``, or nothing.

    Raises:
        InputRefused: ``WRONG_BODY_PART`` when every part named has nothing in common with the trunk.
    """
    if allowed is None:
        return []
    found = sorted({header.text("BodyPartExamined").upper() for header in headers} - {""})
    if not found:
        return _free_text(headers[0], allowed)
    if any(word.upper() in part for part in found for word in allowed):
        return []
    message = f"BodyPartExamined says {', '.join(found)}, and this model was made for {names(allowed)}."
    if all(re.sub(r"[^A-Z]", "", part) in FAR_BODY_PARTS for part in found):
        raise InputRefused("WRONG_BODY_PART", message, "Give a scan of the right part of the body.")
    return [Finding(code="WRONG_BODY_PART", message=message)]


def _free_text(header: DicomHeader, allowed: Sequence[str]) -> list[Finding]:
    for keyword in ("ProtocolName", "SeriesDescription"):
        text = header.text_upper(keyword).replace("_", " ")
        word = _FAR_WORDS.search(text)
        if word and not _WIDE_WORDS.search(text) and not any(other.upper() in text for other in allowed):
            message = f"BodyPartExamined is empty, and {keyword} speaks of {word.group()}."
            return [Finding(code="WRONG_BODY_PART", message=message)]
    return []
