"""What a worker imports before it forks for any call, so that calls do not each pay for it."""

import ast
from collections.abc import Iterable

# Of installed packages that graders are known to use. The zygote, which is not locked in, imports them by these names
# and runs nothing of the sources; a test holds that they start no thread, which a fork would break.
MODULES = (
    "jsonschema nltk numpy numpy.linalg numpy.random pandas pydantic rapidfuzz rapidfuzz.distance rapidfuzz.fuzz "
    "rapidfuzz.process rapidfuzz.utils rouge_score rouge_score.rouge_scorer sacrebleu scipy scipy.spatial.distance "
    "scipy.stats sklearn sklearn.metrics sqlparse sympy yaml"
)


def worth_importing(sources: Iterable[str]) -> list[str]:
    """Those of MODULES that the sources import anywhere; none for a source that does not compile."""
    found = set()
    for source in sources:
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    names = {".".join(name.split(".")[:end]) for name in found for end in range(1, name.count(".") + 2)}
    return sorted(names & set(MODULES.split()))
