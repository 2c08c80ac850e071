"""What the page says of a skin lesion: each class with its probability, the set, and what went in."""

from __future__ import annotations

from shared_nets.types import LesionResult
from shared_nets.writers.lesion_words import (
    class_in_words,
    label_in_words,
    lesion_in_words,
    likely_class,
    malignancy_in_words,
    probability_in_digits,
    probability_in_words,
    set_in_words,
)
from shared_nets.writers.page_parts import (
    PageContent,
    bar,
    clinical_value,
    escaped,
    section,
    table,
    tag,
    warning_box,
    words,
)

_STYLE = """.classes th[scope=row] { width: 50%; }
.classes .faint { display: block; font-weight: 400; }
"""


def lesion_page(result: LesionResult) -> PageContent:
    """Write what is particular to a lesion result."""
    is_given = result.label is not None
    return PageContent(
        kind="Skin lesion",
        question="Most probable class" if is_given else "The model abstains",
        answer=label_in_words(result),
        lead=f"{_probability_of_label(result)}{malignancy_in_words(result)}",
        before_warnings=(
            [] if is_given else [warning_box("Why no label is given", "abstentions", result.abstentions)]
        ),
        alternative=(
            "The photograph; beside it where covering a place lowers the probability of the most probable "
            f"class; a bar for each class. {lesion_in_words(result)}"
        ),
        sections=_sections(result),
        style=_STYLE,
    )


def _sections(result: LesionResult) -> list[str]:
    used = [
        [words(name), clinical_value(entry), entry.get("source") or ""]
        for name, entry in result.metadata_used.items()
    ]
    missing = ", ".join(words(name) for name in result.metadata_missing)
    return [
        *section("Probability of each class", _class_bars(result), tag("p", set_in_words(result))),
        *section("Likeness to the training images", tag("p", _likeness(result))),
        *section(
            "Inputs",
            tag("p", "The photograph, and what was said of person and lesion." if used else
                "The photograph alone; nothing was said of person and lesion, or the model does not use it."),
            table("Metadata used", ["Name", "Value", "Source"], used, kind="names") if used else "",
            tag("p", f"Missing ({len(result.metadata_missing)}): {missing}.") if missing else "",
        ),
    ]  # fmt: skip


def _class_bars(result: LesionResult) -> str:
    rows = []
    shown = likely_class(result)
    for name, probability in result.class_probabilities.items():
        chosen = ' class="chosen"' if name == shown else ""
        about = ["malignant class"] if name in result.malignant_classes else []
        about += ["in the prediction set"] if name in result.prediction_set else []
        more = f'<span class="faint">{", ".join(about)}</span>' if about else ""
        rows.append(
            f'<tr{chosen}><th scope="row">{escaped(class_in_words(name))}{more}</th>'
            f'<td class="number">{escaped(probability_in_digits(probability))}</td>'
            f'<td aria-hidden="true">{bar(probability)}</td></tr>'
        )
    names = "".join(f'<th scope="col">{column}</th>' for column in ("Class", "Probability"))
    caption = "<caption>The most probable class in bold</caption>"
    head = f"<thead><tr>{names}<td></td></tr></thead>"
    return f'<table class="bars classes">{caption}{head}<tbody>{"".join(rows)}</tbody></table>'


def _probability_of_label(result: LesionResult) -> str:
    if result.label is None:
        return ""
    return f"Probability of this class: {probability_in_words(result.class_probabilities[result.label])}. "


def _likeness(result: LesionResult) -> str:
    if result.ood_score is None or result.ood_limit is None:
        return "Not checked."
    verdict = "unlike" if result.ood_score > result.ood_limit else "not unlike"
    return (
        f"The image is {verdict} those that the model learned from: its distance is {result.ood_score:.1f}, "
        f"the limit {result.ood_limit:.1f}."
    )
