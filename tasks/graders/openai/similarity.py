"""The metrics of text_similarity, each in 0..1, 1 for equal texts (but see METEOR). Either text empty: 0.

What the hosted grader does beyond a metric's name is not published. Here:

- fuzzy_match: rapidfuzz `fuzz.ratio`, 2 x common subsequence / both lengths. Not WRatio, which pays 0.6 to 0.9 for any
  text that holds the reference among much else, and takes minutes for long ones.
- bleu: sacrebleu `sentence_bleu` (13a tokens, exponential smoothing, effective order).
- gleu: nltk `sentence_gleu` over words between spaces.
- meteor: nltk `single_meteor_score` over words between spaces, WITHOUT its synonym stage, which needs WordNet to be
  downloaded: exact and Porter-stem matches only, so never above the score with synonyms. One chunk of n words scores
  1 - 0.5 / n^3: an equal text of one word 0.5, of four 0.992.
- rouge_1 to rouge_5, rouge_l: rouge-score's F-measure without stemming. Its tokens are a-z and 0-9 only: texts in
  other scripts score 0.
"""

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics import BLEU

from tasks.graders.frame import MAX_CHARACTERS
from tasks.graders.openai.failures import Failure, GradeError


def similarity(metric: str, text: str, reference: str) -> float:
    """The metric of a schema.TextSimilarity. GradeError for a text of more than MAX_CHARACTERS, template included."""
    if (length := max(len(text), len(reference))) > MAX_CHARACTERS:
        raise GradeError(Failure.OTHER, f"a text of {length} characters to compare; at most {MAX_CHARACTERS}")
    if not text.strip() or not reference.strip():
        return 0.0
    if metric.startswith("rouge_") and metric != "rouge_l":
        value = _rouge(metric, text, reference)
    else:
        value = METRICS[metric](text, reference)
    return min(1.0, max(0.0, value))  # sacrebleu gives 100.00000000000004 of 100


def _fuzzy(text: str, reference: str) -> float:
    return fuzz.ratio(text, reference) / 100


def _bleu(text: str, reference: str) -> float:
    return BLEU(effective_order=True).sentence_score(text, [reference]).score / 100


def _gleu(text: str, reference: str) -> float:
    # nltk, which rouge-score needs too, loads scikit-learn and pandas: seconds, which only its users should wait for.
    from nltk.translate.gleu_score import sentence_gleu

    return sentence_gleu([reference.split()], text.split())


def _meteor(text: str, reference: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    return single_meteor_score(reference.split(), text.split(), wordnet=NoSynonyms())


class NoSynonyms:
    """Stands for nltk's WordNet reader, and knows no word."""

    def synsets(self, word: str) -> tuple:
        return ()


def _rouge(metric: str, text: str, reference: str) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    name = metric.replace("_", "")
    return RougeScorer([name]).score(reference, text)[name].fmeasure


def _rouge_l(text: str, reference: str) -> float:
    """As rouge-score's rougeL, whose table of len(text) x len(reference) entries would take gigabytes."""
    from rouge_score.tokenizers import DefaultTokenizer

    words, reference_words = (DefaultTokenizer().tokenize(side) for side in (text, reference))
    shared = LCSseq.similarity(words, reference_words)
    return 2 * shared / (len(words) + len(reference_words)) if shared else 0.0


METRICS = {"fuzzy_match": _fuzzy, "bleu": _bleu, "gleu": _gleu, "meteor": _meteor, "rouge_l": _rouge_l}
