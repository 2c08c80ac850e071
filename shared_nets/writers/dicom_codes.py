"""Codes of the DICOM objects that we write: SNOMED CT, LOINC, UCUM, and our own where none of them fits."""

from __future__ import annotations

from pydicom.sr.coding import Code

#: Coding scheme of our own; the objects that use it say what it is.
OWN_SCHEME, OWN_SCHEME_NAME = "99SHARED_NETS", "Concepts of the shared_nets bundles"

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
#: By the numbers of :class:`shared_nets.types.KidneyMask`.
KIDNEYS: dict[int, Code] = {
    1: Code("9846003", "SCT", "Right kidney"),
    2: Code("18639004", "SCT", "Left kidney"),
    3: Code("64033007", "SCT", "Kidney"),
}
TUMOUR = Code("108369006", "SCT", "Neoplasm")
CYST = Code("367643001", "SCT", "Cyst")
COMPUTED_TOMOGRAPHY = Code("77477000", "SCT", "Computed tomography")

DERMOSCOPY = Code("446078004", "SCT", "Dermoscopic photography")
PHOTOGRAPHY = Code("197157006", "SCT", "Photography of patient")
SKIN = Code("39937001", "SCT", "Skin")
SKIN_LESION = Code("95324001", "SCT", "Skin lesion")

VOLUME = Code("118565006", "SCT", "Volume")
LENGTH = Code("410668003", "SCT", "Length")
MEAN_ATTENUATION = Code("112181", "DCM", "Mean Attenuation Coefficient")
ESTIMATED = Code("414135002", "SCT", "Estimated")
YES, NO = Code("373066001", "SCT", "Yes"), Code("373067005", "SCT", "No")
CREATININE = Code("2160-0", "LN", "Creatinine [Mass/volume] in Serum or Plasma")
EGFR = Code("98979-8", "LN", "GFR/1.73 sq M predicted, creatinine-based (CKD-EPI 2021)")

MILLILITRE = Code("mL", "UCUM", "mL")
MILLIMETRE = Code("mm", "UCUM", "mm")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MG_PER_DL = Code("mg/dL", "UCUM", "mg/dL")
ML_PER_MIN_173 = Code("mL/min/{1.73_m2}", "UCUM", "mL/min/1.73 m2")
NO_UNITS = Code("1", "UCUM", "no units")
PERCENT = Code("%", "UCUM", "Percent")


def own(value: str, meaning: str) -> Code:
    """Make a code of our own scheme."""
    return Code(value, OWN_SCHEME, meaning)


NOTICE, WARNING, LIMITATION = (
    own("notice", "Notice"),
    own("warning", "Warning"),
    own("limitation", "Limitation"),
)
NOT_MEASURED = own("from_ct", "Estimated from CT by software, not measured in blood")
WITHOUT_LESIONS = own("no_lesions", "Kidney without tumours and cysts")
INTERVAL_LOW = own("interval_low", "Lower end of prediction interval")
INTERVAL_HIGH = own("interval_high", "Upper end of prediction interval")
INTERVAL_LEVEL = own("interval_level", "Coverage of prediction interval")
IS_CUT_OFF = own("is_cut_off", "Kidney reaches the edge of the scan")
GFR_CATEGORY = own("gfr_category", "KDIGO GFR category of the estimate")

LESION_CLASS = own("lesion_class", "Most probable class of the lesion, by a model")
IN_PREDICTION_SET = own("in_set", "Class in the prediction set")
MALIGNANT_CLASS = own("p_malignant_any", "Probability of a malignant class")
SET_COVERAGE = own("set_coverage", "Coverage of the prediction set")
OOD_DISTANCE = own("ood_distance", "Distance from the training images")
OOD_LIMIT = own("ood_limit", "Distance from which on the model abstains")
ABSTENTION = own("abstention", "Why no label is given")


def gfr_category(stage: str) -> Code:
    """Give the code of a KDIGO GFR category (``G1`` … ``G5``).

    SNOMED CT has stages of chronic kidney disease only, which one scan cannot show.
    """
    return own(stage, f"KDIGO GFR category {stage}")


def probability_of(stage: str) -> Code:
    """Give the code of the probability of a KDIGO GFR category."""
    return own(f"p_{stage}", f"Probability of KDIGO GFR category {stage}")
