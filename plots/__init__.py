"""Every figure of this repository: arrays in, a matplotlib `Figure` out.

    from plots.det_roc import det_curve
    from plots.style import write_figure

    figure = det_curve({"AASIST": (frr, far)}, {"AASIST": 0.0083})
    write_figure(figure, Path("results/det"))  # results/det.png, results/det.pdf

Rates come in as fractions and are drawn in percent. A higher score means more bona fide; FRR = bona fide rejected,
FAR = spoof accepted. No pyplot and no global settings: a server's threads may draw figures.
"""
