"""Draw the guide's own pictures into guides/images/. Those named ex_0N_... come from the exercises' runs instead.

    python guides/draw_pictures.py              all of them
    python guides/draw_pictures.py NAME         only draw_NAME, into images/NAME.png

Every function `draw_NAME() -> Figure` here makes the picture NAME.png: a solid white background, so that it can be read
in light and dark mode, and text that can be read at a width of 800 pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"


def pictures() -> dict:
    """{NAME: function} of every draw_NAME above or below."""
    return {name.removeprefix("draw_"): function for name, function in globals().items() if name.startswith("draw_")}


def main(argv: list[str] | None = None) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wanted = (sys.argv[1:] if argv is None else argv) or list(pictures())
    IMAGES.mkdir(exist_ok=True)
    for name in wanted:
        if name not in pictures():
            sys.exit(f"error: there is no picture {name!r}; there are {', '.join(pictures()) or 'none'}")
        figure = pictures()[name]()
        fresh = IMAGES / f"{name}.png.new"
        figure.savefig(fresh, format="png", dpi=120, bbox_inches="tight", facecolor="white")
        fresh.replace(IMAGES / f"{name}.png")
        plt.close(figure)


# The pictures, in the order of the guide


def draw_attention_steps():
    """The worked example of section 3: scores, weights, and weights under a causal mask, as numbers on heat maps."""
    import matplotlib.pyplot as plt
    import torch

    x = torch.tensor([[1., 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]])
    w_q = torch.tensor([[2., 0], [0, 2], [1, 0], [0, 1]])
    w_k = torch.tensor([[0., 1], [2, 0], [-1, 1], [1, -1]])
    scores = (x @ w_q) @ (x @ w_k).T / 2 ** 0.5
    masked = scores.masked_fill(torch.triu(torch.ones(3, 3), 1).bool(), float("-inf"))
    panels = [("scores: QKᵀ / √d_k", scores), ("weights: softmax of each row", scores.softmax(-1)),
              ("weights under a causal mask", masked.softmax(-1))]
    tokens = ["cats", "like", "milk"]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.9), facecolor="white", layout="constrained")
    for axis, (title, values) in zip(axes, panels, strict=True):
        axis.imshow(values, cmap="Blues", vmin=0, vmax=2 * values.max())
        for i in range(3):
            for j in range(3):
                hidden = "mask" in title and j > i
                axis.text(j, i, "hidden" if hidden else f"{values[i, j]:.2f}", ha="center", va="center", fontsize=14,
                          color="0.45" if hidden else "black")
        axis.set_title(title, fontsize=14)
        axis.set_xticks(range(3), tokens, fontsize=13)
        axis.set_yticks(range(3), tokens, fontsize=13)
        axis.set_xlabel("looked at (key)", fontsize=12)
    axes[0].set_ylabel("looking (query)", fontsize=12)
    return figure


def draw_attention_masks():
    """Who may look at whom in an encoder, a decoder and an encoder-decoder."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import ListedColormap

    source, target = ["The", "cat", "sleeps"], ["Die", "Katze", "schläft"]
    full, causal = np.ones((3, 3)), np.tril(np.ones((3, 3)))
    both = np.block([[full, np.zeros((3, 3))], [2 * full, causal]])
    panels = [("Encoder (BERT)", full, source), ("Decoder (GPT)", causal, source),
              ("Encoder-decoder (T5, BART)", both, source + target)]
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.6), facecolor="white", layout="constrained",
                                width_ratios=[1, 1, 1.7])
    for axis, (title, allowed, words) in zip(axes, panels, strict=True):
        axis.imshow(allowed, cmap=ListedColormap(["white", "#3b78b5", "#e09a3e"]), vmin=0, vmax=2)
        n = len(words)
        axis.set_xticks(range(n), words, fontsize=12, rotation=45)
        axis.set_yticks(range(n), words, fontsize=12)
        axis.set_xticks(np.arange(-0.5, n), minor=True)
        axis.set_yticks(np.arange(-0.5, n), minor=True)
        axis.grid(which="minor", color="0.6")
        axis.tick_params(which="minor", length=0)
        axis.set_title(title, fontsize=14)
        axis.set_xlabel("is looked at", fontsize=12)
    axes[0].set_ylabel("row looks", fontsize=12)
    for x, y, text in ((1, 1, "source:\nall of it"), (1, 4, "cross-\nattention"), (3.6, 4.55, "target:\npast only")):
        axes[2].text(x, y, text, ha="center", va="center", fontsize=12, color="black" if y == 4 else "white")
    return figure


def draw_model_sizes():
    """Parameters of language models by the month of their paper or release, on a logarithmic axis."""
    from matplotlib.figure import Figure

    # name, year and month as a number, parameters in billions, where the label goes (points right, points up)
    encoders = [("BERT-large", 2018.79, 0.335, (-34, 8)), ("RoBERTa-large", 2019.54, 0.355, (7, -12))]
    decoders = [("GPT-1", 2018.46, 0.1165, (7, -4)), ("GPT-2", 2019.12, 1.558, (7, -4)),
                ("GPT-3", 2020.38, 175, (-42, 4)), ("GPT-Neo", 2021.21, 2.65, (7, -4)),
                ("GPT-J", 2021.46, 6.05, (7, -4)), ("Gopher", 2021.94, 280, (-50, -4)),
                ("MT-NLG", 2022.04, 530, (-62, -4)), ("Chinchilla", 2022.21, 70, (7, -6)),
                ("PaLM", 2022.29, 540, (7, 3)), ("GPT-NeoX-20B", 2022.29, 20.55, (7, -4)),
                ("OPT, BLOOM", 2022.35, 175, (7, -4)), ("Llama 3 405B", 2024.54, 405, (-88, -4)),
                ("Llama 3 8B", 2024.54, 8.03, (7, -4)), ("SmolLM2", 2025.12, 0.1345, (-24, 8))]
    experts = [("GLaM", 2021.94, 1200, 97, (7, 3)), ("DeepSeek-V3", 2024.98, 671, 37, (-36, 8)),
               ("Qwen3-235B", 2025.37, 235, 22, (7, -4))]  # all parameters, and those used for each token
    figure = Figure(figsize=(9, 5.4), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for label, colour, marker, rows in (("encoder", "#1b7837", "s", encoders), ("decoder", "#2166ac", "o", decoders)):
        axes.scatter([row[1] for row in rows], [row[2] for row in rows], c=colour, marker=marker, s=45, label=label)
        for name, year, size, shift in rows:
            axes.annotate(name, (year, size), xytext=shift, textcoords="offset points", fontsize=10)
    for i, (name, year, size, active, shift) in enumerate(experts):
        axes.plot([year, year], [active, size], "-", color="#b35806", linewidth=1.5)
        axes.plot(year, size, "D", color="#b35806", markersize=7, label=None if i else "mixture of experts: all")
        axes.plot(year, active, "D", color="#b35806", markersize=7, markerfacecolor="white",
                  label=None if i else "mixture of experts: used per token")
        axes.annotate(name, (year, size), xytext=shift, textcoords="offset points", fontsize=10)
    axes.set(yscale="log", xlim=(2018, 2026.7), ylim=(0.07, 4000), xlabel="paper or release",
             ylabel="parameters, billions (logarithmic)")
    axes.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1,000"])
    axes.set_title("Published sizes of language models, 2018 to 2025", fontsize=12)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower center", fontsize=10, bbox_to_anchor=(0.55, 0.0), borderaxespad=0.3)
    return figure


def draw_kv_cache():
    """Memory of the key-value cache against context length, for three numbers of key-value heads, and the weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    lengths = [1024 * 2**i for i in range(8)]  # 1,024 to 131,072
    for heads, colour, name in ((32, "#b2182b", "32 key-value heads: one for each query head"),
                                (8, "#2166ac", "8 key-value heads: grouped, as in Llama 3 8B"),
                                (1, "#1b7837", "1 key-value head: multi-query")):
        per_token = 2 * 32 * heads * 128 * 2  # keys and values, 32 layers, heads, head size 128, 2 bytes
        axes.plot(lengths, [per_token * n / 1e9 for n in lengths], "o-", color=colour, label=name)
    axes.axhline(16.06, color="grey", linestyle="--")
    axes.annotate("the 8.03 billion weights in 16 bits", (1100, 18), fontsize=10)
    axes.set(xscale="log", yscale="log", xlabel="tokens in the context", ylabel="GB for one conversation")
    axes.set_xticks(lengths, [f"{n // 1024}K" for n in lengths])
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.set_title("The key-value cache of a 32-layer model, 16 bits", fontsize=12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=10, loc="lower right")
    return figure


def draw_reward_hacking():
    """The toy of section 12.4: proxy reward and true quality against the distance from the starting model."""
    import numpy as np
    from matplotlib.figure import Figure

    gradient = np.array([1.0, 0.5])

    def qualities(beta):
        shift = gradient[:, None] / np.atleast_1d(beta)
        return (shift ** 2).sum(0) / 2, gradient @ shift, shift[0] - shift[1] ** 2

    kl, proxy, true = qualities(1 / np.linspace(0.001, 5.2, 400))
    figure = Figure(figsize=(8, 4.2), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("white")
    axes.plot(kl, proxy, color="#0072B2", linewidth=2.5)
    axes.plot(kl, true, color="#D55E00", linewidth=2.5, linestyle="--")
    axes.axhline(0, color="0.6", linewidth=1)
    axes.text(8.5, 5.0, "proxy reward", color="#0072B2", fontsize=12, ha="right")
    axes.text(14.2, -0.5, "true quality", color="#D55E00", fontsize=12)
    for beta, offset in ((1.0, (8, -18)), (0.5, (0, 12)), (0.25, (4, 12))):
        x, _, y = (values[0] for values in qualities(beta))
        axes.plot(x, y, "o", color="#D55E00", markersize=8)
        axes.annotate(f"beta {beta:g}", (x, y), offset, textcoords="offset points", fontsize=11)
    axes.set_xlabel("KL divergence from the starting model (a smaller beta allows more)", fontsize=11)
    axes.set_ylabel("reward", fontsize=11)
    axes.set_title("A proxy keeps rising while quality falls (toy of section 12.4)", fontsize=12)
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_accuracy_intervals():
    """The 95 % Wilson interval of an accuracy of 0.83 by number of test examples (Wilson 1927)."""
    import matplotlib.pyplot as plt
    from scipy.stats import binomtest

    sizes = [100, 200, 300, 500, 1000, 2000, 3000, 5000, 10000]
    shares = [round(0.83 * n) / n for n in sizes]
    ends = [binomtest(round(0.83 * n), n).proportion_ci(0.95, method="wilson") for n in sizes]
    figure, axes = plt.subplots(figsize=(8, 4.2), facecolor="white", layout="constrained")
    axes.fill_between(sizes, [end.low for end in ends], [end.high for end in ends], color="#9ecae1",
                      label="95 % interval")
    axes.plot(sizes, shares, color="#08519c", marker="o", markersize=5, label="measured accuracy")
    for n in (100, 300, 1000, 10000):
        low, high = ends[sizes.index(n)]
        axes.annotate(f"{low:.3f} to {high:.3f}", (n, low), xytext=(0, -15), textcoords="offset points",
                      ha="right" if n == 10000 else "left", fontsize=11)
    axes.set_xscale("log")
    ticks = [100, 200, 500, 1000, 2000, 5000, 10000]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set_ylim(0.7, 0.95)
    axes.set_xlabel("test examples", fontsize=12)
    axes.set_ylabel("accuracy", fontsize=12)
    axes.set_title("The same 83 % means more with more examples", fontsize=13)
    axes.tick_params(labelsize=11)
    axes.grid(color="#dddddd")
    axes.legend(fontsize=11, loc="lower right")
    return figure


def draw_model_timeline():
    """Parameters of published models by year; mixtures of experts from total down to active parameters.

    The numbers are those of the guide's section 21, with their sources.
    """
    import matplotlib.pyplot as plt

    models = {  # name: year, billions, family, where its name stands (points to the right, points up)
        "BERT base": (2018.78, 0.1095, "encoder", (-8, -14)), "BERT large": (2018.78, 0.335, "encoder", (-8, 7)),
        "DistilBERT": (2019.75, 0.0664, "encoder", (6, -12)), "RoBERTa large": (2019.55, 0.355, "encoder", (-2, -15)),
        "MiniLM-L6": (2021.65, 0.0227, "encoder", (7, -4)), "ModernBERT": (2024.96, 0.149, "encoder", (-30, 8)),
        "T5-11B": (2019.8, 11.3, "encoder-decoder", (-42, 2)),
        "BART large": (2019.82, 0.406, "encoder-decoder", (2, 8)),
        "GPT-1": (2018.45, 0.1165, "decoder", (-38, 3)), "GPT-2 XL": (2019.84, 1.558, "decoder", (7, -4)),
        "GPT-3": (2020.4, 175, "decoder", (7, -4)), "GPT-J": (2021.45, 6.05, "decoder", (7, -4)),
        "Gopher": (2021.93, 280, "decoder", (-45, 4)), "Chinchilla": (2022.24, 70, "decoder", (-62, -4)),
        "PaLM": (2022.27, 540, "decoder", (7, 0)), "BLOOM": (2022.85, 176, "decoder", (7, -4)),
        "LLaMA 65B": (2023.15, 65, "decoder", (-28, -16)), "Mistral 7B": (2023.75, 7.24, "decoder", (-24, -16)),
        "Llama 3.1 405B": (2024.56, 405, "decoder", (-88, -4)), "Llama 3 8B": (2024.3, 8.03, "decoder", (6, 3)),
        "SmolLM2-135M": (2025.1, 0.1345, "decoder", (6, -14)),
    }
    mixtures = {"Mixtral 8x7B": (2023.95, 46.7, 12.9, (-5, 8)), "DeepSeek-V3": (2024.98, 671, 37, (-30, 9)),
                "gpt-oss-120b": (2025.6, 117, 5.1, (-38, -106)), "DeepSeek-V4-Pro": (2026.31, 1600, 49, (-62, 9))}
    looks = {"encoder": ("#1b7837", "s"), "encoder-decoder": ("#d95f02", "D"), "decoder": ("#2166ac", "o")}
    figure, axes = plt.subplots(figsize=(9, 6), facecolor="white", layout="constrained")
    for family, (colour, marker) in looks.items():
        points = [(year, size) for year, size, kind, _ in models.values() if kind == family]
        axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, s=48, label=family, zorder=3)
    for name, (year, size, _, place) in models.items():
        axes.annotate(name, (year, size), xytext=place, textcoords="offset points", fontsize=10)
    for name, (year, total, active, place) in mixtures.items():
        axes.plot([year, year], [active, total], color="#762a83", zorder=2)
        axes.scatter([year], [total], color="#762a83", marker="^", s=60, zorder=3,
                     label="mixture of experts, total" if name == "Mixtral 8x7B" else None)
        axes.scatter([year], [active], edgecolor="#762a83", facecolor="white", marker="v", s=60, zorder=3,
                     label="mixture of experts, active" if name == "Mixtral 8x7B" else None)
        axes.annotate(name, (year, total), xytext=place, textcoords="offset points", fontsize=10)
    axes.set_yscale("log")
    axes.set_ylim(0.01, 9000)
    axes.set_yticks([0.01, 0.1, 1, 10, 100, 1000], ["10 M", "100 M", "1 B", "10 B", "100 B", "1 T"])
    axes.set_xlim(2017.8, 2027)
    axes.set_xticks(range(2018, 2027))
    axes.set_ylabel("parameters (logarithmic)", fontsize=12)
    axes.set_title("Published sizes of pre-trained models", fontsize=13)
    axes.tick_params(labelsize=11)
    axes.grid(color="#e5e5e5")
    axes.legend(fontsize=11, loc="upper left", framealpha=1)
    return figure


if __name__ == "__main__":
    main()
