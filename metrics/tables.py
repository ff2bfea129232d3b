"""`evaluate` results as text: the report, the comparison of systems, LaTeX rows and CSV."""

import csv
import textwrap
from pathlib import Path

from common.escaping import csv_cell, latex, printable
from common.files import replacing

LABELS = {  # reported name → its label in tables
    "eer_percent": "EER %", "rocch_eer_percent": "ROCCH-EER %", "min_tdcf": "min t-DCF 2019",
    "min_tdcf_2021": "min t-DCF 2021", "auc": "AUC", "min_dcf": "min DCF", "act_dcf": "act DCF", "cllr": "Cllr (bits)",
}  # fmt: skip


def format_report(result: dict, name: str = "", official: bool = False) -> str:
    """A result as a table; with `official`, as the text report of the ASVspoof 2019 package."""
    if official:
        return _format_official(result)
    trials = f"{result['n_bonafide']:,} bona fide and {result['n_spoof']:,} spoof trials"
    lines = [f"{printable(name) or 'scores'}: {trials}"]
    fewest = min(result["n_bonafide"], result["n_spoof"])
    for key, label in LABELS.items():
        if result[key] is not None:
            value = f"{result[key]:.{decimals(fewest)}f}"
            lines.append(f"  {label:<16}{value:>12}{_brackets(result.get('intervals', {}).get(key), fewest)}")
    lines += _format_further(result)
    lines += _format_decisions(result["decisions"], fewest)
    lines += _format_breakdown("attack", result["per_attack"]) if result["per_attack"] else []
    lines += _format_breakdown(result["group_by"], result["groups"]) if result["groups"] else []
    return "\n".join(lines)


def decimals(trials: int) -> int:
    """Decimals that a result on so many trials of the rarer class is worth: six from 1,000 on, as published."""
    return 6 if trials >= 1000 else 4 if trials >= 100 else 2


def _brackets(ends: list[float] | None, trials: int) -> str:
    form = f".{_rate_decimals(trials)}f"
    return f"   [{ends[0]:{form}} … {ends[1]:{form}}]" if ends else ""


def _rate_decimals(trials: int) -> int:
    """Of intervals, and of rates at a threshold."""
    return min(4, decimals(trials))


def _format_further(result: dict) -> list[str]:
    """Calibrated costs, SASV, the verifier, and how the intervals were made."""
    lines = []
    if calibrated := result.get("calibrated"):
        lines += [
            f"  calibrated LLR = {calibrated['a']:.6g} · score {calibrated['b']:+.6g}: "
            f"act DCF {calibrated['act_dcf']:.6f}, Cllr {calibrated['cllr']:.6f} bit"
        ]
    if sasv := result["sasv"]:
        parts = [("a-DCF", sasv["a_dcf"], ""), ("t-EER", sasv["t_eer_percent"], " %")]
        known = [f"{label} {value:.6f}{unit}" for label, value, unit in parts if value is not None]
        lines += [f"  SASV: {', '.join(known)}"]
    if asv := result["asv"]:
        lines += [
            f"  ASV check: EER {asv['eer'] * 100:.6f} % at {asv['threshold']:.6f}, "
            f"where it rejects {asv['p_miss_spoof']:.2%} of spoofs"
        ]
    if drawn := result.get("bootstrap"):
        lines += [
            f"  […] 95 % bootstrap intervals: {drawn['resamples']:,} resamples by {drawn['unit']} "
            f"({drawn['n_units']['bonafide']:,} bona fide, {drawn['n_units']['spoof']:,} spoof)"
        ]
    return lines


def _format_decisions(decisions: list[dict], fewest: int) -> list[str]:
    """Rates and counts at each threshold. fewest: trials of the rarer class."""
    form = f".{_rate_decimals(fewest)}f"
    lines = [
        "",
        f"  {'threshold':<17}{'value':>11}{'accuracy %':>12}{'FRR %':>9}{'FAR %':>9}{'F1 bona fide':>14}"
        f"{'F1 spoof':>10}",
    ]
    for row in decisions:
        lines.append(
            f"  {row['at']:<17}{row['threshold']:>11.6g}{row['accuracy'] * 100:>12{form}}{row['frr'] * 100:>9{form}}"
            f"{row['far'] * 100:>9{form}}{row['f1_bonafide']:>14{form}}{row['f1_spoof']:>10{form}}"
        )
        (accepted, missed), (false_alarms, caught) = row["confusion"]
        lines.append(
            f"    bona fide: {accepted:,} accepted, {missed:,} rejected; "
            f"spoof: {false_alarms:,} accepted, {caught:,} rejected"
        )
    return lines


def _format_breakdown(column: str, rows: dict[str, dict]) -> list[str]:
    """Per attack or group: counts, EER with its interval, min t-DCF; – if a class is missing."""
    rows = {printable(name): row for name, row in rows.items()}
    width = max(9, *map(len, rows)) + 2
    counts = ("n",) if column == "attack" else ("n_bonafide", "n_spoof")
    heads = {"n": "spoof", "n_bonafide": "bona fide", "n_spoof": "spoof"}
    head = "".join(f"{heads[count]:>10}" for count in counts) + f"{'EER %':>11}{'t-DCF 2019':>12}"
    if any(row.get("eer_percent_interval") for row in rows.values()):
        head += "   EER, 95 %"
    lines = ["", f"  {printable(column):<{width}}{head}"]
    for name, row in rows.items():
        cells = "".join(f"{row[count]:>10,}" for count in counts)
        fewest = min(row[count] for count in counts)
        form = f".{decimals(fewest)}f"
        cells += f"{_cell(row['eer_percent'], form):>11}{_cell(row['min_tdcf'], form):>12}"
        lines.append(f"  {name:<{width}}{cells}{_brackets(row.get('eer_percent_interval'), fewest)}")
    return lines


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _format_official(result: dict) -> str:
    """The numbers of the ASVspoof 2019 package's report, in its order and precision."""
    lines = ["", "CM SYSTEM", f"\tEER\t\t= {result['eer_percent']:12.9f} % (Equal error rate for countermeasure)"]
    if result["min_tdcf"] is not None:
        lines += ["", "TANDEM", f"\tmin-tDCF\t\t= {result['min_tdcf']:12.9f}"]
    lines += ["", "BREAKDOWN CM SYSTEM"]
    lines += [
        f"\tEER {name}\t\t= {row['eer_percent']:12.9f} % (Equal error rate for {name})"
        for name, row in zip(map(printable, result["per_attack"]), result["per_attack"].values(), strict=True)
    ]
    return "\n".join(lines)


def format_comparison(results: dict[str, dict], comparisons: list[dict]) -> str:
    """One line per system, then the paired tests."""
    keys = [key for key in LABELS if any(row[key] is not None for row in results.values())]
    keys.remove("rocch_eer_percent")
    results = {printable(name): row for name, row in results.items()}
    width = max(6, *map(len, results)) + 1
    heads = [LABELS[key].removeprefix("min ").removesuffix(" (bits)") for key in keys]
    lines = [f"{'system':<{width}}" + "".join(f"{head:>11}" for head in heads)]
    for name, row in results.items():
        lines.append(f"{name:<{width}}" + "".join(f"{_cell(row[key], '.4f'):>11}" for key in keys))
    if comparisons:
        holm = ", p by Holm" if len(comparisons) > 1 else ""
        lines += ["", f"paired tests on the same resamples of each pair's common trials{holm}:"]
        lines += [
            textwrap.fill(printable(comparison["sentence"]), 98, initial_indent="  ", subsequent_indent="    ")
            for comparison in comparisons
        ]
    return "\n".join(lines)


def format_latex(results: dict[str, dict]) -> str:
    """Table rows: system, EER (%), min t-DCF, EER (%) of each attack; a comment above names the columns."""
    attacks = sorted({attack for result in results.values() for attack in result["per_attack"]})
    lines = [f"% system & EER (\\%) & min t-DCF{''.join(f' & {latex(attack)}' for attack in attacks)} \\\\"]
    for name, result in results.items():
        eers = [result["per_attack"].get(attack, {}).get("eer_percent") for attack in attacks]
        cells = [
            latex(name),
            f"{result['eer_percent']:.2f}",
            _cell(result["min_tdcf"], ".4f"),
            *(_cell(eer, ".2f") for eer in eers),
        ]
        lines.append(" & ".join(cells).replace("–", "--") + " \\\\")
    return "\n".join(lines)


def format_latex_table(results: dict[str, dict]) -> str:
    """The rows of `format_latex` in a tabular."""
    head, *rows = format_latex(results).splitlines()
    head = head.removeprefix("% ")
    begin = f"\\begin{{tabular}}{{l{'r' * head.count(' & ')}}}"
    return "\n".join([begin, "\\hline", head, "\\hline", *rows, "\\hline", "\\end{tabular}"]) + "\n"


def write_csv(path: str | Path, results: dict[str, dict]) -> None:
    """One row per system and condition (pooled, each attack, each group), in full precision."""
    heads = ["system", "condition", "n_bonafide", "n_spoof", *LABELS, "eer_percent_low", "eer_percent_high"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, heads, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for name, result in results.items():
            first = {"system": name, "n_bonafide": result["n_bonafide"]}
            pooled = with_interval(result)
            attacks = {attack: {**row, "n_spoof": row["n"]} for attack, row in result["per_attack"].items()}
            for condition, row in [("pooled", pooled), *attacks.items(), *result["groups"].items()]:
                low, high = row.get("eer_percent_interval") or (None, None)
                ends = {"eer_percent_low": low, "eer_percent_high": high}
                cells = {**first, **row, **ends, "condition": condition}
                table.writerow({name: csv_cell(value) for name, value in cells.items()})


def with_interval(result: dict) -> dict:
    """The pooled result in the form of a `per_attack` row."""
    return {**result, "eer_percent_interval": result.get("intervals", {}).get("eer_percent")}
