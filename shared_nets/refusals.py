"""The one way in which bad input is turned away: a code, what is wrong, what to do."""

from __future__ import annotations

EXIT_STATUS_REFUSED = 3

#: Every refusal code and what it stands for. Codes are stable: other programs branch on them.
CODES: dict[str, str] = {
    # files
    "INPUT_NOT_FOUND": "the path does not exist",
    "INPUT_NO_PERMISSION": "the path cannot be read",
    "INPUT_EMPTY": "the folder or list holds no readable image",
    "INPUT_UNREADABLE": "the file is not in a format that is read here, or is damaged",
    # series and modality
    "WRONG_MODALITY": "the image is not of the modality the model was made for",
    "WRONG_BODY_PART": "the image does not show the part of the body the model was made for",
    "SERIES_AMBIGUOUS": "several series could be meant",
    "SERIES_NOT_FOUND": "the wanted series is not there",
    "SERIES_INCONSISTENT": "the images of the series do not belong together",
    "SERIES_DERIVED": "the images are projections of slabs, which change sizes and densities",
    # geometry
    "GEOMETRY_NO_POSITION": "a slice does not say where it lies",
    "GEOMETRY_BAD_ORIENTATION": "the image axes are missing, not of length 1, or not perpendicular",
    "GEOMETRY_BAD_SPACING": "the pixel spacing or slice distance is missing, zero or negative",
    "GEOMETRY_MISSING_SLICE": "a slice is missing",
    "GEOMETRY_IRREGULAR_SPACING": "the distance between slices varies",
    "GEOMETRY_DUPLICATE_SLICE": "two different slices lie at one position",
    "GEOMETRY_GANTRY_TILT": "the slices are sheared by a tilted gantry",
    "GEOMETRY_MIXED_SIZE": "the slices differ in size",
    "GEOMETRY_MIXED_ORIENTATION": "the slices differ in orientation",
    "GEOMETRY_TOO_FEW_SLICES": "there are too few slices for a volume",
    "GEOMETRY_CONFLICT": "the header says in two ways where the image lies, and they differ",
    "GEOMETRY_NOT_A_VOLUME": "the image is not one three-dimensional volume",
    # pixels
    "PIXEL_RESCALE_INVALID": "the rescale slope or intercept is missing, zero or not a number",
    "PIXEL_TRUNCATED": "the pixel data are shorter than the header says",
    "PIXEL_MISSING": "there are no pixel data",
    "PIXEL_UNDECODABLE": "the pixel data cannot be decoded",
    "PIXEL_FORMAT_UNSUPPORTED": "the pixel format is not a grey image of whole numbers",
    "PIXEL_NOT_FINITE": "the image holds values that are not numbers",
    "PIXEL_NOT_HU": "the values cannot be Hounsfield units",
    "PIXEL_BURNED_IN_ANNOTATION": "text is burned into the pixels",
    # photographs
    "IMAGE_TOO_LARGE": "the image has more pixels than are read",
    "IMAGE_TOO_SMALL": "the image has fewer pixels than a judgement needs",
    "IMAGE_SEVERAL_FRAMES": "the file holds several pictures",
    "IMAGE_TRANSPARENT": "every pixel is transparent",
    "IMAGE_BLANK": "the image shows nothing: one colour, or no contrast",
    "IMAGE_DARK": "the image is too dark",
    "IMAGE_BRIGHT": "the image is too bright",
    "IMAGE_BLURRED": "the image is out of focus",
    "IMAGE_NOT_SKIN": "the image does not show skin",
    # kidneys
    "KIDNEY_NOT_FOUND": "the image looks like an abdomen, but no kidney was found in it",
    # masks
    "MASK_EMPTY": "the mask shows no kidney",
    "MASK_MISSING": "no mask was given",
    "MASK_GEOMETRY_MISMATCH": "the mask does not lie where the image lies",
    "MASK_LABELS_UNKNOWN": "the mask holds labels that its label set does not name",
    "MASK_TOO_SMALL": "no slice shows enough kidney",
    # clinical values
    "CLINICAL_UNREADABLE": "the clinical values are not a JSON object or a CSV table",
    "CLINICAL_UNKNOWN_COLUMN": "a clinical value has a name that the schema does not know",
    "CLINICAL_UNKNOWN_UNIT": "a clinical value has a unit that cannot be converted",
    "CLINICAL_OUT_OF_RANGE": "a clinical value lies outside its allowed range",
    "CLINICAL_BAD_VALUE": "a clinical value is not a number or not one of the allowed words",
    "CLINICAL_REQUIRED_MISSING": "a clinical value that the result cannot do without is missing",
    "CLINICAL_CASE_NOT_FOUND": "the clinical table has no single row for this study",
    "CLINICAL_GIVEN_TWICE": "a clinical value is given twice, perhaps under two names",
    "AGE_UNDER_18": "the equations for kidney function hold from 18 years on",
    # other servers
    "SERVER_UNREACHABLE": "the server that holds the images does not answer",
    "SERVER_NO_PERMISSION": "the server that holds the images does not accept the name and password",
    "SERVER_REFUSED": "the server that holds the images answers with an error, or does not store",
    # set-up
    "WEIGHTS_MISMATCH": "the weights are not the ones the bundle was released with",
    "PACKAGES_MISMATCH": "an installed package is missing or of another version than the bundle needs",
    "WORKLIST_CHANGED": "the output folder belongs to a run with other studies or another configuration",
    "WORKLIST_IN_USE": "another process works on the same studies",
}


class InputRefused(Exception):
    """Input that must not be turned into a result.

    Args:
        code: one of :data:`CODES`.
        message: what is wrong, naming the file or tag, never a patient.
        remedy: what the user can do about it.

    Raises:
        KeyError: ``code`` is not in the table.
    """

    def __init__(self, code: str, message: str, remedy: str) -> None:
        if code not in CODES:
            raise KeyError(f"code must be one of shared_nets.refusals.CODES, got {code!r}.")
        super().__init__(code, message, remedy)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.remedy}"

    def as_dict(self) -> dict[str, str]:
        """Return ``{"code", "message", "remedy"}`` for JSON."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy}


def refusal_behind(error: BaseException) -> InputRefused | None:
    """Find the refusal that an error was raised from; MONAI wraps what a transform raises.

    Args:
        error: what was caught.

    Returns:
        The refusal, or ``None`` when the error has another cause. An error that merely happened while a
        refusal was handled is a defect of the handling, not a refusal.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, InputRefused):
            return seen
        seen = seen.__cause__
    return None
