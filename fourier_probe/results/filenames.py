"""What each verb leaves in a folder, so that nothing is overwritten unasked. Imports nothing."""

PARTS = ("attention", "cka", "kernels", "maps", "tokens")
ANALYZE = (
    *("spectra.json", "spectra.npz", "spectra.csv", "spectra.pdf", "spectra.png", "depth.pdf", "depth.png"),
    *("metrics.pdf", "metrics.png"),
    *("reliance.pdf", "reliance.png"),
    *(f"{name}.{kind}" for name in PARTS for kind in ("csv", "pdf", "png")),
)
COMPARE_FIGURES = ("spectra", "depth", "zigzag", "steps", "density", "coordinate", "maps", "cka", "metrics")
COMPARE = (
    *("compare.csv", "steps.csv", "density.csv", "coordinate.csv", "cka.csv", "cka.json"),
    *(f"{name}.{kind}" for name in COMPARE_FIGURES for kind in ("pdf", "png")),
)
COMPARE_EPOCHS = ("compare.csv", "epochs.pdf", "epochs.png")
VALIDATE = (
    *("validation.json", "validation.csv", "confusion.csv", "confusion.pdf", "confusion.png"),
    *("lesions.csv", "lesions.pdf", "lesions.png", "hessian.csv", "hessian.pdf", "hessian.png"),
)
DEMO = ("demo.csv", "demo.pdf", "demo.png")
HEATMAP = (
    "heatmap.json",
    *(f"{name}.{kind}" for name in ("heatmap", "bands", "filters") for kind in ("csv", "pdf", "png")),
)
SCHEDULE = ("schedule.json", "schedule.pdf", "schedule.png")
