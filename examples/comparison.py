"""One picture for all cells that were put to the same task."""

from __future__ import annotations

from pathlib import Path

# Of each experiment: the log to draw, what it is, whether its variants (depth, kind, and perhaps
# size and machine) are one task, and what is compared at the same number of steps or, if not that,
# at the same time.
EXPERIMENTS = {
    "adding_problem": ("val_loss", "mean squared error, new sequences", False, True),
    "pixel_mnist": ("val_accuracy", "accuracy, held-out images", False, False),
    "ptb_characters": ("val_bpc", "bits per character, validation", True, False),
}


def groups(results: list[dict]) -> dict[str, list[dict]]:
    """The results that belong into one picture, by its name."""
    found: dict[str, list[dict]] = {}
    for result in results:
        name = result["name"]
        if result["experiment"] in EXPERIMENTS:
            _, _, all_variants, _ = EXPERIMENTS[result["experiment"]]
            parts = result["variant"].split("-")
            if all_variants:
                parts = parts[2:]  # time tells nothing across machines and sizes
            name = "-".join(filter(None, [result["experiment"], *parts, "compared"]))
        found.setdefault(name, []).append(result)
    return found


def unfinished(folder: Path) -> list[Path]:
    """The states of the runs in the folder that were begun."""
    return sorted(folder.glob("checkpoints/*/[0-9]*/state.json"))


def draw(folder: Path, results: list[dict]) -> None:
    """Writes the pictures of all tasks that have several results."""
    from experiment import pyplot, save

    for name, compared in groups(results).items():
        if len(compared) < 2:
            continue
        log, ylabel, all_variants, by_steps = EXPERIMENTS[compared[0]["experiment"]]
        figure, axes = pyplot().subplots(figsize=(8, 4.5), layout="constrained")
        values = []
        for i, result in enumerate(compared):
            curve, color = result["curve"], f"C{i}"
            x = curve["steps"] if by_steps else [s / 60 for s in curve["seconds"]]
            kind = f", {result['variant']}" if all_variants else ""
            label = f"{result['cell']}{kind}, {result['layers']} x {result['units']}"
            axes.plot(x, curve[log], color=color, label=label)
            values += curve[log]
            if by_steps and result["published"]:
                solved = float(result["metric"].split()[-1])
                axes.plot(result["published"], solved, "*", color=color, markersize=12)
        if by_steps:
            axes.plot([], [], "k*", markersize=12, label="the paper")
            axes.axhline(compared[0]["chance"], color="gray", linestyle="--", label="chance")
        if max(values) > 20 * min(values) > 0:
            axes.set_yscale("log")
        title = name.removesuffix("-compared").replace("_", " ").replace("-", " ")
        xlabel = "training steps" if by_steps else "minutes of training"
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
        save(figure, folder / f"{name}.png")
