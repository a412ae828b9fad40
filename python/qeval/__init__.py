"""qeval: what did quantization cost this model?

    import qeval

    model = qeval.load("model.gguf", arithmetic="integer")
    model.score([("The capital of France is", " Paris")])
    model.generate(["Once upon a time"], max_tokens=40)
    results = model.evaluate("arc_easy", data="data", limit=100)
    results.to_pandas()

Figures are those of the program `qeval`, which the package brings along, bit for bit: both are made of the same
libraries. Options have the program's names, with underscores.
"""

from ._native import Error, UsageError
from ._native import version as __version__
from .comparing import Comparison, compare
from .model import Generation, Model, Score, TokenScores, load
from .results import Results, load_results

__all__ = [
    "Comparison",
    "Error",
    "Generation",
    "Model",
    "Results",
    "Score",
    "TokenScores",
    "UsageError",
    "__version__",
    "compare",
    "load",
    "load_results",
]
