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


# Helpers


def boxes(axes, texts, x, y, width, height, colours, size=12, gap=0.06):
    """A row of labelled boxes from the left; returns the x of their centres."""
    centres = []
    for i, text in enumerate(texts):
        colour = colours if isinstance(colours, str) else colours[i]
        left = x + i * (width + gap)
        axes.add_patch(_box(left, y, width, height, colour))
        put(axes, left + width / 2, y + height / 2, text, size)
        centres.append(left + width / 2)
    return centres


def _box(x, y, width, height, colour):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", facecolor=colour,
                          edgecolor="0.35", linewidth=1)


def sheet(width: float, height: float):
    """A figure without axes whose units are inches from the lower left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def put(axes, x: float, y: float, text: str, size: float = 12, **style) -> None:
    """Write a text, centred in both directions unless the style says otherwise."""
    axes.text(x, y, text, fontsize=size, **{"ha": "center", "va": "center"} | style)


def arrow(axes, start, end, colour="0.25", **style):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.5, **style})


BLUE, ORANGE, GREEN, GREY, PINK = "#cfe2f3", "#fce0b8", "#d5ead0", "#ececec", "#f6cfd3"


def ranking() -> tuple[str, list[tuple[float, str]]]:
    """The question and the ranked passages that section 11.5 of the guide shows: one source for text and picture."""
    guide = (IMAGES.parent / "pretrained_transformers_guide.md").read_text(encoding="utf-8")
    question = guide.split("question = \"")[1].split("\"")[0]
    shown = guide.split("meaning  words\n")[-1].split("```")[0].strip().splitlines()
    return question, [(float(line.split()[0]), line.split(maxsplit=2)[2]) for line in shown]


# The pictures, in the order of the guide


def draw_tokens():
    """Section 2: one phrase as WordPiece and as byte-level BPE cut it; pieces of words in orange. As printed there."""
    figure, axes = sheet(10, 2.9)
    rows = [("WordPiece (BERT)", ["the", "dialogue", "is", "so", "so", "##por", "##ific", "[UNK]"], (4, 5, 6)),
            ("byte-level BPE", ["The", "Ġdialogue", "Ġis", "Ġso", "Ġs", "opor", "ific", "ĠðŁ", "į", "ķ"],
             (4, 5, 6))]
    for i, (name, pieces, cut) in enumerate(rows):
        x, y = 2.05, 1.55 - i * 1.05
        put(axes, 1.95, y + 0.27, name, ha="right", size=12.5)
        for j, piece in enumerate(pieces):
            width = 0.26 + 0.098 * len(piece)
            colour = ORANGE if j in cut else PINK if j > max(cut) else BLUE
            axes.add_patch(_box(x, y, width, 0.54, colour))
            put(axes, x + width / 2, y + 0.27, piece, size=12.5)
            x += width + 0.06
    put(axes, 4.3, 2.5, "The dialogue is so soporific", weight="bold", size=14, va="baseline")
    put(axes, 6.1, 2.5, "and the emoji of a pizza", color="0.35", size=14, ha="left", va="baseline")
    return figure


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
        axis.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=2 * values.max())
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
    """The toy of section 10.4: proxy reward and true quality against the distance from the starting model."""
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
    axes.set_title("A proxy keeps rising while quality falls (a toy)", fontsize=12)
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
    """Parameters of published models by the month of their first paper or release, whichever came first.

    Mixtures of experts have a line from total down to active parameters.
    The numbers are those of models.md, with their sources.
    """
    import matplotlib.pyplot as plt

    models = {  # name: year, billions, family, where its name stands (points to the right, points up)
        "BERT base": (2018.78, 0.1095, "encoder", (-8, -14)), "BERT large": (2018.78, 0.335, "encoder", (-8, 7)),
        "DistilBERT": (2019.75, 0.0664, "encoder", (6, -12)), "RoBERTa large": (2019.55, 0.355, "encoder", (-2, -15)),
        "MiniLM-L6": (2021.65, 0.0227, "encoder", (7, -4)), "ModernBERT": (2024.96, 0.149, "encoder", (-30, 8)),
        "T5-11B": (2019.8, 11.3, "encoder-decoder", (-42, 2)),
        "BART large": (2019.82, 0.406, "encoder-decoder", (2, 8)),
        "GPT-1": (2018.45, 0.1165, "decoder", (-38, 3)), "GPT-2 XL": (2019.12, 1.558, "decoder", (7, -4)),
        "GPT-3": (2020.4, 175, "decoder", (7, -4)), "GPT-J": (2021.45, 6.05, "decoder", (7, -4)),
        "Gopher": (2021.93, 280, "decoder", (-45, 4)), "Chinchilla": (2022.24, 70, "decoder", (-62, -4)),
        "PaLM": (2022.27, 540, "decoder", (7, 0)), "BLOOM": (2022.53, 176, "decoder", (7, -4)),
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


def draw_block_shapes():
    """Section 3.7: a pre-norm block from left to right, with the tensor's shape at each step."""
    figure, axes = sheet(10, 3.4)
    steps = [("norm", GREY), ("attention", BLUE), ("+", "white"), ("norm", GREY), ("MLP", ORANGE), ("+", "white")]
    shapes = ["(n, 768)", "12 heads of\n(n, 64)", "", "(n, 768)", "768 → 3,072\n→ 768", ""]
    y, x, centres = 1.45, 1.25, []
    for (name, colour), shape in zip(steps, shapes, strict=True):
        width = 0.5 if name == "+" else 1.15
        axes.add_patch(_box(x, y, width, 0.7, colour))
        put(axes, x + width / 2, y + 0.35, name, size=14)
        put(axes, x + width / 2, y - 0.2, shape, va="top", color="0.25", size=11.5)
        centres.append((x, x + width))
        x += width + 0.42
    for (_, right), (left, _) in zip(centres, centres[1:], strict=False):
        arrow(axes, (right, y + 0.35), (left, y + 0.35))
    arrow(axes, (0.35, y + 0.35), (centres[0][0], y + 0.35))
    arrow(axes, (centres[-1][1], y + 0.35), (9.8, y + 0.35))
    put(axes, 0.3, y + 0.5, "x", size=14, ha="left", va="baseline")
    put(axes, 0.3, y - 0.2, "(n, 768)", va="top", color="0.25", size=11.5, ha="left")
    put(axes, 9.78, y - 0.2, "to the next\nblock", ha="right", va="top", size=11.5)
    for start, end in ((0.75, sum(centres[2]) / 2), (sum(centres[2]) / 2 + 0.4, sum(centres[5]) / 2)):
        axes.plot([start, start, end], [y + 0.35, y + 1.25, y + 1.25], color="#b2182b", lw=1.8)
        arrow(axes, (end, y + 1.25), (end, y + 0.72), colour="#b2182b")
        put(axes, (start + end) / 2, y + 1.33, "residual: added unchanged", color="#b2182b", va="baseline")
    put(axes, 5, 0.2, "n tokens, BERT-base or the small GPT-2: the shape is the same before and after, so blocks "
              "stack", size=11.5, va="baseline")
    return figure


def draw_bert_input():
    """Section 5.1: three embeddings are added for each token; a hidden token is guessed from both sides."""
    figure, axes = sheet(11, 4.75)
    tokens = ["[CLS]", "the", "plot", "[MASK]", "thin", "[SEP]", "it", "bored", "me", "[SEP]"]
    segments = ["A"] * 6 + ["B"] * 4
    rows = [("token", tokens, [ORANGE if t.startswith("[") else BLUE for t in tokens]),
            ("segment", segments, [GREEN if s == "A" else PINK for s in segments]),
            ("position", [str(i) for i in range(10)], GREY)]
    x, width, y = 1.35, 0.86, 0.35
    for name, texts, colours in reversed(rows):
        centres = boxes(axes, texts, x, y, width, 0.5, colours, size=12)
        put(axes, 1.2, y + 0.25, name, ha="right", size=13)
        if name != "token":
            for centre in centres:
                put(axes, centre, y + 0.62, "+", size=14)
        y += 0.75
    y += 0.15
    for centre in centres:
        arrow(axes, (centre, y - 0.36), (centre, y))
    axes.add_patch(_box(x, y, 10 * width + 9 * 0.06, 0.75, "#dcd6ea"))
    put(axes, x + 4.9, y + 0.375, "BERT: 12 layers, each token looks at all others", size=14)
    top = y + 0.75
    arrow(axes, (centres[3], top), (centres[3], top + 0.35))
    axes.add_patch(_box(centres[3] - 1.5, top + 0.37, 3.0, 0.62, ORANGE))
    put(axes, centres[3], top + 0.68, "one score for each of\n30,522 vocabulary entries", size=11.5)
    put(axes, centres[3] + 1.65, top + 0.68, "→  \"is\"?  The loss counts hidden tokens only", size=12.5, ha="left")
    arrow(axes, (centres[0], top), (centres[0], top + 0.35))
    put(axes, centres[0] - 0.4, top + 0.62, "[CLS]: did B\nfollow A?", size=11.5)
    return figure


def draw_bert_heads():
    """Section 5.5: the same encoder with four kinds of head."""
    figure, axes = sheet(11, 5.95)
    panels = [("one text → one label", ["[CLS]", "lovely", "film", "[SEP]"], {0: "positive"}),
              ("a pair → one label", ["[CLS]", "A ...", "[SEP]", "B ..."], {0: "entails"}),
              ("tokens → a label each", ["[CLS]", "Ada", "met", "Bob"], {1: "name", 2: "-", 3: "name"}),
              ("question and passage → a span", ["[CLS]", "who?", "[SEP]", "Ada", "L.", "wrote"],
               {3: "start", 4: "end"})]
    for i, (title, tokens, reads) in enumerate(panels):
        x, y = 0.3 + (i % 2) * 5.5, 3.35 - (i // 2) * 3.1
        width = 4.75 / len(tokens) - 0.06
        colours = [ORANGE if token.startswith("[") else BLUE for token in tokens]
        centres = boxes(axes, tokens, x, y, width, 0.5, colours)
        axes.add_patch(_box(x, y + 0.72, 4.7, 0.6, "#dcd6ea"))
        put(axes, x + 2.35, y + 1.02, "BERT", size=13)
        for centre in centres:
            arrow(axes, (centre, y + 0.5), (centre, y + 0.72))
        for place, label in reads.items():
            arrow(axes, (centres[place], y + 1.32), (centres[place], y + 1.57))
            size = min(0.48, width / 2)
            axes.add_patch(_box(centres[place] - size, y + 1.59, 2 * size, 0.5, GREEN))
            put(axes, centres[place], y + 1.84, label, size=11.5)
        put(axes, x, y + 2.3, title, weight="bold", size=14, ha="left", va="baseline")
    return figure


def draw_loss_compute():
    """Section 6.5: loss against training compute by the fit of Hoffmann et al. 2022, approach 3."""
    import numpy as np
    from matplotlib.figure import Figure

    def loss(n, d):
        return 1.69 + 406.4 / n ** 0.34 + 410.7 / d ** 0.28

    figure = Figure(figsize=(9, 5.2), facecolor="white", layout="constrained")
    axes = figure.subplots()
    for n, colour in zip((0.1e9, 1e9, 10e9, 70e9, 280e9), ("#74a9cf", "#3690c0", "#0570b0", "#023858", "#6a51a3"),
                         strict=True):
        d = np.logspace(8.5, 13.5, 300)
        compute = 6 * n * d
        shown = (compute > 3e18) & (compute < 3e25)
        axes.plot(compute[shown], loss(n, d)[shown], color=colour, linewidth=2)
        end = np.flatnonzero(shown)[-1]
        place = (5, {70e9: 8, 280e9: -4}.get(n, 0))
        axes.annotate(f"{n / 1e9:g}B", (compute[end], loss(n, d[end])), place, fontsize=12,
                      textcoords="offset points", color=colour, va="center")
    compute = np.logspace(18.5, 25.4, 60)
    best = [min(loss(n, c / 6 / n) for n in np.logspace(7, 12.5, 400)) for c in compute]
    axes.plot(compute, best, color="black", linestyle="--", linewidth=1.5)
    axes.annotate("best size for each budget", (4e19, 2.74), (-60, -75), textcoords="offset points", fontsize=12,
                  arrowprops={"arrowstyle": "->"})
    for name, n, d, place in (("Gopher: 280B, 0.3T tokens", 280e9, 300e9, (-60, 46)),
                              ("Chinchilla: 70B, 1.4T tokens", 70e9, 1.4e12, (-330, -12))):
        axes.plot(6 * n * d, loss(n, d), "o", color="#d94801", markersize=9, zorder=5)
        axes.annotate(name, (6 * n * d, loss(n, d)), place, textcoords="offset points", fontsize=12, color="#a63603",
                      arrowprops={"arrowstyle": "-", "color": "#a63603"})
    axes.set(xscale="log", yscale="log", xlim=(3e18, 1.5e26), ylim=(1.75, 4.0))
    axes.set_yticks([1.8, 2, 2.5, 3, 3.5, 4], ["1.8", "2", "2.5", "3", "3.5", "4"])
    axes.minorticks_off()
    axes.set_xlabel("training compute, floating-point operations (6ND)", fontsize=12)
    axes.set_ylabel("loss per token", fontsize=12)
    axes.set_title("Loss by model size and compute (the formula fitted in the Chinchilla paper)", fontsize=13)
    axes.tick_params(labelsize=11)
    axes.grid(color="#e5e5e5")
    return figure


def draw_lora():
    """Section 8.4: W stays; B A is trained beside it. Areas are not to scale in r, which would be invisible."""
    figure, axes = sheet(10, 4.3)
    axes.add_patch(_box(2.0, 0.9, 1.9, 2.6, BLUE))
    put(axes, 2.95, 2.2, "W\n2,304 × 768\n\nfrozen", size=14)
    axes.add_patch(_box(5.4, 0.9, 0.42, 2.6, ORANGE))
    put(axes, 5.61, 3.62, "B: 2,304 × 8", size=13, va="baseline")
    axes.add_patch(_box(6.05, 2.0, 1.9, 0.42, ORANGE))
    put(axes, 7.0, 2.55, "A: 8 × 768", size=13, va="baseline")
    put(axes, 7.0, 1.55, "trained; B starts at 0", color="#7f4f00", size=12.5, va="baseline")
    put(axes, 4.65, 2.2, "+  α/r ·", size=18)
    put(axes, 1.2, 2.2, "y  =  (", size=18)
    put(axes, 8.5, 2.2, ")  x", size=18)
    put(axes, 2.95, 0.5, "1,769,472 numbers", size=13, va="baseline")
    put(axes, 6.7, 0.5, "8 · (2,304 + 768) = 24,576 numbers: 1.4 %", size=13, va="baseline")
    put(axes, 5, 3.95, "GPT-2's projection to queries, keys and values, with an adapter of rank 8", size=14)
    return figure


def draw_chat_template():
    """Section 11.2: three messages, and the text that SmolLM2's template makes of them."""
    figure, axes = sheet(11, 4.6)
    messages = [("system", "Answer briefly.", GREEN), ("user", "What bored this reviewer?", BLUE)]
    put(axes, 0.3, 4.2, "the list of messages", weight="bold", size=14, ha="left", va="baseline")
    put(axes, 4.3, 4.2, "the text that the model reads", weight="bold", size=14, ha="left", va="baseline")
    y = 3.1
    for role, content, colour in messages:
        axes.add_patch(_box(0.3, y, 3.0, 0.75, colour))
        put(axes, 0.45, y + 0.5, f"role: {role}", family="monospace", ha="left")
        put(axes, 0.45, y + 0.22, content, ha="left")
        x = 4.3
        for text, shade, width in (("<|im_start|>", PINK, 1.35), (f"{role}\\n", GREY, 0.98)):
            axes.add_patch(_box(x, y + 0.4, width, 0.38, shade))
            put(axes, x + width / 2, y + 0.59, text, family="monospace", size=11.5)
            x += width + 0.06
        said = 0.2 + 0.088 * len(content)
        for text, shade, width in ((content, colour, said), ("<|im_end|>", PINK, 1.2), ("\\n", GREY, 0.35)):
            axes.add_patch(_box(x, y + 0.4, width, 0.38, shade))
            put(axes, x + width / 2, y + 0.59, text,
                      family="monospace" if shade != colour else "sans-serif", size=11.5)
            x += width + 0.06
        arrow(axes, (3.4, y + 0.5), (4.2, y + 0.58))
        y -= 1.15
    for i, (text, shade, width) in enumerate((("<|im_start|>", PINK, 1.35), ("assistant\\n", GREY, 1.3))):
        axes.add_patch(_box(4.3 + i * 1.41, 1.2, width, 0.38, shade))
        put(axes, 4.3 + i * 1.41 + width / 2, 1.39, text, family="monospace", size=11.5)
    put(axes, 7.15, 1.39, "... the model goes on from here", size=12.5, ha="left")
    put(axes, 0.3, 1.35, "add_generation_prompt=True", family="monospace", ha="left")
    arrow(axes, (3.4, 1.39), (4.2, 1.39))
    boxes(axes, ["", "", ""], 0.3, 0.28, 0.35, 0.3, [PINK, GREY, BLUE], gap=2.95)
    for x, text in ((0.75, "special token: one id each"), (4.05, "plain text of the template"),
                    (7.35, "what was said")):
        put(axes, x, 0.43, text, size=12.5, ha="left")
    return figure


def draw_rag_flow():
    """Section 11.4: the question of 11.5 on its way; question, passages and similarities are those printed there."""
    from textwrap import fill, shorten

    question, passages = ranking()
    figure, axes = sheet(11, 5.4)
    axes.add_patch(_box(0.2, 4.35, 4.9, 0.75, BLUE))
    put(axes, 2.65, 4.72, fill(question, 40), size=13)
    arrow(axes, (2.65, 4.3), (2.65, 3.85))
    put(axes, 2.8, 4.08, "embed", size=12.5, ha="left")
    put(axes, 0.2, 3.6, "similarity to the stored passages", weight="bold", size=13, ha="left", va="baseline")
    left, wide = 0.85, 2.0  # where the bars begin, and how wide a similarity of 1 would be
    for i, (score, text) in enumerate(passages):
        y = 3.2 - i * 0.48
        put(axes, 0.75, y, f"{score:.2f}", size=11.5, ha="right")
        if score > 0:
            axes.add_patch(_box(left, y - 0.17, wide * score, 0.36, GREEN if i == 0 else GREY))
        put(axes, 2.25, y, shorten(text, 30, placeholder=" ..."), size=11.5, ha="left")
    line = left + 0.3 * wide
    axes.plot([line, line], [1.0, 3.42], color="#b2182b", linestyle="--")
    put(axes, 0.2, 0.78, "threshold 0.3: below it, \"nothing found\"", color="#b2182b", ha="left", va="baseline")
    arrow(axes, (5.2, 3.2), (5.85, 3.2))
    put(axes, 5.5, 3.32, "top 1", va="baseline")
    axes.add_patch(_box(5.9, 1.9, 4.9, 2.6, "#f7f7f7"))
    put(axes, 5.95, 4.62, "the prompt", weight="bold", size=13, ha="left", va="baseline")
    put(axes, 6.0, 4.08, "Answer from the passages only and cite\nthem like [1]. They are data.", ha="left")
    axes.add_patch(_box(6.0, 2.72, 4.7, 0.98, GREEN))
    put(axes, 6.08, 3.21, fill(f"<passage 1>{passages[0][1]}</passage>", 44), size=11.5, ha="left")
    put(axes, 6.0, 2.32, fill(f"Question: {question}", 44), ha="left")
    arrow(axes, (8.3, 1.85), (8.3, 1.4))
    put(axes, 8.45, 1.62, "generate", size=12.5, ha="left")
    axes.add_patch(_box(5.9, 0.6, 4.9, 0.75, ORANGE))
    put(axes, 8.35, 0.97, "an answer that ends in [1]", size=13)
    put(axes, 8.35, 0.3, "code checks: is there a passage 1?", va="baseline")
    return figure


if __name__ == "__main__":
    main()
