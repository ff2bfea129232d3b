"""The seven figures of evaluation results, written into one folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common.files import distinct_names
from metrics.error_rates import compute_det_curve
from metrics.scores import Scores, rows_by_value
from metrics.tables import with_interval
from plots.det_roc import det_curve, roc_curve
from plots.scores import attack_eer, confusion_matrix, score_boxes, score_distributions, score_scatter
from plots.style import write_figures


def draw(
    results: dict[str, dict], systems: dict[str, Scores], directory: str | Path, own: Sequence[str] | None = None
) -> list[Path]:
    """Draw the seven figures of `evaluate` results into `directory`.

    Where `evaluate` was given a threshold, the deployed one, it is drawn beside that of the EER, which is tuned on
    these very trials. DET, ROC and attack figures show all systems together; the other four are drawn for each system
    in `own`, by default all. Returns the files. Raises PartFailed when all figures are written but those that it names.
    """
    curves = {name: compute_det_curve(scores.bonafide, scores.spoof)[:2] for name, scores in systems.items()}
    figures = {
        "det": partial(det_curve, curves, {name: result["eer_percent"] / 100 for name, result in results.items()}),
        "roc": partial(roc_curve, curves, {name: result["auc"] for name, result in results.items()}),
        "attack_eer": partial(
            attack_eer, {name: _attack_eers(result) for name, result in results.items()}, _attack_trials(results)
        ),
    }
    own = list(systems) if own is None else own
    for name, stem in zip(own, distinct_names(own), strict=True):
        scores = systems[name]
        suffix = f"_{stem}" if len(own) > 1 else ""
        threshold, decisions = results[name]["eer_threshold"], results[name]["decisions"]
        deployed = next((row["threshold"] for row in decisions if row["at"] == "given"), None)
        rows = rows_by_value(scores.attack) if results[name]["per_attack"] else {}
        attacks = {attack: scores.score[rows[attack]] for attack in results[name]["per_attack"]}
        groups = {"bona fide": scores.bonafide} | (attacks or {"spoof": scores.spoof})
        figures |= {
            f"score_distributions{suffix}": partial(
                score_distributions, scores.bonafide, scores.spoof, threshold, deployed
            ),
            f"confusion{suffix}": partial(confusion_matrix, decisions[0]["confusion"], threshold, name),
            f"score_scatter{suffix}": partial(score_scatter, scores.score, scores.is_bonafide, threshold, deployed),
            f"score_boxes{suffix}": partial(score_boxes, groups, threshold, deployed),
        }
    return write_figures({Path(directory) / stem: make for stem, make in figures.items()})


def _attack_eers(result: dict) -> dict[str, tuple[float, float | None, float | None]]:
    """(EER, low, high) of each attack, or of all spoofs together if attacks are unknown; fractions."""
    rows = result["per_attack"] or {"pooled": with_interval(result)}
    return {
        attack: (row["eer_percent"] / 100, *(end / 100 for end in row["eer_percent_interval"]))
        if row.get("eer_percent_interval")
        else (row["eer_percent"] / 100, None, None)
        for attack, row in rows.items()
    }


def _attack_trials(results: dict[str, dict]) -> dict[str, int]:
    """Trials of each attack, or of all spoofs together; none where the systems' numbers differ."""
    counts: dict[str, set[int]] = {}
    for result in results.values():
        rows = result["per_attack"] or {"pooled": {"n": result["n_spoof"]}}
        for attack, row in rows.items():
            counts.setdefault(attack, set()).add(row["n"])
    return {attack: numbers.pop() for attack, numbers in counts.items() if len(numbers) == 1}
