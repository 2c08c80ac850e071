"""One result as one HTML file: no script, nothing from elsewhere; for a phone, a dark room and paper too."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shared_nets.types import CKDResult, Estimate, Finding, StudyResult
from shared_nets.writers.result_words import (
    STAGE_RANGES,
    interval_in_words,
    kidney_measures,
    result_in_words,
    unit_in_words,
)

#: Colours of text and ground by name, for a light and a dark display.
COLOURS = {
    "light": {
        "ground": "#ffffff", "ink": "#1b1f23", "faint": "#57606a", "line": "#d0d7de", "bar": "#0b5cad",
        "track": "#e6ebf0", "notice": "#fff1d6", "notice-ink": "#5c3900", "warning": "#fde7e4",
        "warning-ink": "#7d1a12",
    },
    "dark": {
        "ground": "#101418", "ink": "#f0f3f6", "faint": "#a9b4bf", "line": "#3a434c", "bar": "#6cb1ff",
        "track": "#262d34", "notice": "#3a2c0c", "notice-ink": "#ffe2a8", "warning": "#431b18",
        "warning-ink": "#ffd2cc",
    },
}  # fmt: skip
_STYLE = """
html { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); background: var(--ground); -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { max-width: 60rem; margin: 0 auto; padding: 0 1rem 2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 1rem 0 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
.answer { font-size: 2.25rem; font-weight: 700; line-height: 1.2; margin: .25rem 0; }
.faint { color: var(--faint); }
.notice, .warnings { border-radius: .5rem; padding: .75rem 1rem; margin: 1rem 0; }
.notice { background: var(--notice); color: var(--notice-ink); font-weight: 600; }
.warnings { background: var(--warning); color: var(--warning-ink); }
.warnings h2 { margin: 0 0 .5rem; border: 0; }
.warnings ul { margin: 0; }
ul { padding-left: 1.25rem; }
code { font-size: 1rem; }
figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #101418; border-radius: .5rem; }
table { width: 100%; border-collapse: collapse; }
caption { text-align: left; color: var(--faint); padding: 1rem 0 .25rem; }
h2 + table caption { padding-top: .25rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
th, td { text-align: left; vertical-align: top; padding: .375rem .75rem .375rem 0;
  border-bottom: 1px solid var(--line); font-size: 1rem; }
th[scope=row] { font-weight: 600; }
thead th, .sizes, .bars { overflow-wrap: normal; }
.names { table-layout: fixed; }
.names th:first-child { width: 42%; }
.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { display: block; height: 1rem; min-width: 3rem; background: var(--track); border-radius: .25rem; }
.bar { display: block; height: 100%; background: var(--bar); border-radius: .25rem; }
.bars th, .bars .number { width: 1%; }
.bars td:last-child { padding-right: 0; vertical-align: middle; }
.chosen th, .chosen td { font-weight: 700; }
@media print {
  html { font-size: 11pt; }
  body { max-width: none; padding: 0; }
  .notice, .warnings, figure, tr { break-inside: avoid; }
  h2, h3, caption, thead { break-after: avoid; }
  .notice:last-child { margin-bottom: 0; }
  .notice, .warnings { border: 1px solid currentColor; }
  .bar, .track { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
#: Nothing may be fetched or run, even if a text were not escaped.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def result_page(result: StudyResult, *, picture_png: bytes | None) -> bytes:
    """Write a result as one HTML page for people.

    Args:
        result: the result, provenance complete.
        picture_png: the picture of the result; ``None`` leaves it out.

    Returns:
        A self-contained HTML file in UTF-8. Equal input gives equal bytes. Texts of the result stay texts.
    """
    kind = "CKD staging" if isinstance(result, CKDResult) else "Kidney measurement"
    title = f"{kind} · {result.study_id}"
    parts = [
        _notice(result.notice),
        _tag("h1", title),
        *_headline(result),
        _warnings(result.warnings),
        _picture(result, picture_png),
        *(_ckd_sections(result) if isinstance(result, CKDResult) else []),
        *_kidneys(result),
        *_section("What this cannot show", _list(result.statements)),
        *_provenance(result),
        _notice(result.notice),
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="robots" content="noindex">',
        _tag("title", title),
        f"<style>{_variables()}{_STYLE}</style>",
    ]
    body = "\n".join(part for part in parts if part)
    page = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>", body,
            "</main>", "</body>", "</html>"]  # fmt: skip
    return ("\n".join(page) + "\n").encode()


def _headline(result: StudyResult) -> list[str]:
    if isinstance(result, CKDResult):
        answer = f"{result.stage} (estimated)"
        label = "KDIGO GFR category, estimated; not a diagnosis of chronic kidney disease"
    else:
        found = (f"{side} {kidney.volume_ml:.0f} mL" for side, kidney in result.kidneys.items())
        answer = " · ".join(found) or "No kidney found"
        label = "Volume of each kidney that was found"
    return [
        f'<p class="faint">{_text(label)}</p>',
        f'<p class="answer">{_text(answer)}</p>',
        _tag("p", result_in_words(result)),
    ]


def _warnings(warnings: Sequence[Finding]) -> str:
    if not warnings:
        return "<p>No warnings.</p>"
    return (
        '<section class="warnings" aria-labelledby="warnings"><h2 id="warnings">Warnings</h2>'
        f"{_findings(warnings)}</section>"
    )


def _picture(result: StudyResult, png: bytes | None) -> str:
    if png is None:
        return ""
    alternative = (
        "Slices of the image with the kidneys outlined, in radiological orientation: the patient's right is "
        f"on the left. {result_in_words(result)}"
    )
    data = base64.b64encode(png).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" alt="{_text(alternative)}"></figure>'


def _ckd_sections(result: CKDResult) -> list[str]:
    numbers = [
        _estimate_row("Serum creatinine, estimated", result.creatinine, digits=2),
        _estimate_row("eGFR, CKD-EPI 2021", result.egfr, digits=0),
    ]
    used = [
        [_words(name), _clinical_value(entry), entry.get("source") or ""]
        for name, entry in result.clinical_used.items()
    ]
    caption = "Estimates, not measured in a laboratory"
    missing = ", ".join(_words(name) for name in result.clinical_missing)
    slices = result.slices
    seen = (
        f"{sum(slices.is_valid)} slices of the {slices.num_kidney_slices} that show kidney, "
        f"from {min(slices.positions_mm):.1f} to {max(slices.positions_mm):.1f} mm along the body."
        if slices.positions_mm
        else f"{sum(slices.is_valid)} slices of the {slices.num_kidney_slices} that show kidney."
    )
    return [
        *_section("Numbers", _table(caption, ["Quantity", "Value", "Interval"], numbers, kind="sizes")),
        *_section("Probability of each GFR category", _stage_bars(result)),
        *_section(
            "Inputs",
            _table("Clinical values used", ["Name", "Value", "Source"], used, kind="names"),
            _tag("p", f"Missing ({len(result.clinical_missing)}): {missing}.") if missing else "",
            _tag("p", f"Image: {seen}"),
        ),
    ]  # fmt: skip


def _clinical_value(entry: Mapping[str, Any]) -> str:
    value, unit = entry["value"], entry.get("unit") or ""
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {unit_in_words(unit)}".strip()


def _estimate_row(name: str, estimate: Estimate | None, *, digits: int) -> list[str]:
    if estimate is None:
        return [name, "not estimated by this network", ""]
    value = f"{estimate.value:.{digits}f} {unit_in_words(estimate.unit)}"
    return [name, value, interval_in_words(estimate, digits=digits)]


def _stage_bars(result: CKDResult) -> str:
    rows = []
    for stage, probability in result.stage_probabilities.items():
        chosen = ' class="chosen"' if stage == result.stage else ""
        bar = f'<span class="track"><span class="bar" style="width:{100 * probability:.1f}%"></span></span>'
        rows.append(
            f'<tr{chosen}><th scope="row">{_text(stage)}</th>'
            f'<td class="number">{_text(STAGE_RANGES[stage])}</td>'
            f'<td class="number">{probability:.0%}</td><td aria-hidden="true">{bar}</td></tr>'
        )
    names = '<th scope="col">Category</th><th scope="col">eGFR</th><th scope="col">Probability</th><td></td>'
    caption = "<caption>eGFR in mL/min/1.73 m²; the estimate's category in bold</caption>"
    return (
        f'<table class="bars">{caption}<thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _kidneys(result: StudyResult) -> list[str]:
    rows = [
        [
            measure.words,
            f"{measure.value:.1f} {unit_in_words(measure.unit)}"
            + (" (visible part; cut off by the edge of the scan)" if measure.is_cut_off else ""),
        ]
        for measure in kidney_measures(result)
    ]
    table = _table("Measured in the mask", ["Size", "Value"], rows, kind="sizes") if rows else "<p>None.</p>"
    return _section("Kidneys", table)


def _provenance(result: StudyResult) -> list[str]:
    made = result.provenance
    software = {
        "bundle": f"{made.bundle} {made.bundle_version}",
        "configuration, sha256": made.config_sha256,
        **{f"weights {name}, sha256": digest for name, digest in made.weights_sha256.items()},
    }
    tables = [
        _named("Software", software),
        _named("Packages", made.packages),
        _named("Image", made.image),
        _named("Mask", made.mask),
        _named("Thresholds", made.thresholds),
    ]
    repairs = _findings(made.repairs) if made.repairs else "<p>None.</p>"
    return _section("Provenance", *tables, "<h3>Repairs</h3>", repairs)


def _named(caption: str, values: Mapping[str, Any]) -> str:
    rows = [[name, value] for name, value in _flat(values)]
    return _table(caption, ["Name", "Value"], rows, kind="names") if rows else ""


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}: ")
        else:
            words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
            yield before + name, "not set" if value is None else words


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _section(heading: str, *parts: str) -> list[str]:
    return [f"<section><h2>{_text(heading)}</h2>", *(part for part in parts if part), "</section>"]


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    names = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    lines = "".join(
        f'<tr><th scope="row">{_name(name)}</th>{"".join(_tag("td", cell) for cell in cells)}</tr>'
        for name, *cells in rows
    )
    opening = f'<table class="{kind}">' if kind else "<table>"
    head = f"<caption>{_text(caption)}</caption><thead><tr>{names}</tr></thead>"
    return f"{opening}{head}<tbody>{lines}</tbody></table>"


def _findings(findings: Sequence[Finding]) -> str:
    items = (f"<li>{_text(one.message)} <code>{_text(one.code)}</code></li>" for one in findings)
    return f"<ul>{''.join(items)}</ul>"


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(_tag('li', text) for text in texts)}</ul>"


def _notice(text: str) -> str:
    return f'<p class="notice" role="note">{_text(text)}</p>'


def _tag(name: str, text: str) -> str:
    return f"<{name}>{_text(text)}</{name}>"


def _text(text: object) -> str:
    return html.escape(str(text))


def _name(text: str) -> str:
    """A name that may break behind its underscores."""
    return _text(text).replace("_", "_<wbr>")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _variables() -> str:
    light, dark = ("".join(f"--{n}:{c};" for n, c in COLOURS[k].items()) for k in ("light", "dark"))
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ @media screen {{ :root {{ {dark} }} }} }}"
    )
