"""Evaluate score files: every number the field publishes, with honest uncertainty. docs/evaluation.md explains each.

    python evaluation.py scores.txt --asv_scores ASVspoof2019.LA.asv.eval.gi.trl.scores.txt
    python evaluation.py a.txt b.txt --asv_scores ASV --protocol PROTOCOL --bootstrap 1000     # tables, paired tests
    python evaluation.py scores.txt --protocol trial_metadata.txt --where subset=eval --group-by codec
    python evaluation.py eval.txt --calibrate dev.txt --asv_scores ASV --json out.json --plots figures
    python evaluation.py a_eval.txt b_eval.txt --fuse fused_eval.txt --dev a_dev.txt b_dev.txt

Score files (higher = more bona fide): `utt attack key score`, `speaker utt - attack key score`, `utt key score`,
a protocol line of any kind below followed by its score, a table with a header line (`filename`, `cm-score`, …), or
`utt score` with --protocol. Protocols: ASVspoof 2019, 2021 and 5, `utt key`, or a table with a header (`file,label`).
The definitions of the metrics are in `metrics.py`, the readers and writers in `score_files.py`.
"""

from common.command import run
from metrics.evaluate import (
    ASVSPOOF,
    EER,
    AsvErrorRates,
    AsvScores,
    Calibration,
    CostModel,
    Decisions,
    MinTDCF,
    Scores,
    add_intervals,
    asv_error_rates,
    bootstrap,
    compare,
    compute_act_dcf,
    compute_auc,
    compute_cllr,
    compute_det_curve,
    compute_eer,
    compute_min_dcf,
    compute_min_tdcf,
    compute_rocch_eer,
    decide,
    draw,
    evaluate,
    fit_calibration,
    format_latex,
    format_report,
    main,
    read_asv_scores,
    read_scores,
    write_csv,
    write_scores,
)

__all__ = [
    "ASVSPOOF", "EER", "AsvErrorRates", "AsvScores", "Calibration", "CostModel", "Decisions", "MinTDCF", "Scores",
    "add_intervals", "asv_error_rates", "bootstrap", "compare", "compute_act_dcf", "compute_auc", "compute_cllr",
    "compute_det_curve", "compute_eer", "compute_min_dcf", "compute_min_tdcf", "compute_rocch_eer", "decide", "draw",
    "evaluate", "fit_calibration", "format_latex", "format_report", "read_asv_scores", "read_scores", "write_csv",
    "write_scores",
]  # fmt: skip


if __name__ == "__main__":
    run(main)
