"""The findings in words and as plain text: names, numbers, the verdict, the summary for a terminal."""

import math
from collections.abc import Callable, Sequence

from tasks.params import Params
from tasks.reporting.compare import Comparison
from tasks.reporting.selection import RIGHT
from tasks.reporting.study import Answer, Study
from tasks.scoring.metrics import METRICS
from tasks.scoring.statistics import MIN_SEEDS, POWER, Interval

SAID = {
    "better": "better than SFT",
    "worse": "worse than SFT",
    "no difference shown": "not shown to differ from SFT",
    "too little data": "undecided for want of data",
}
NAMES = {"base": "Base", "offline_st": "Offline ST", "online_st": "Online ST"}


def name(policy: str) -> str:
    """As it is written in the report."""
    return NAMES.get(policy, policy.upper())


def fixed(value: float) -> str:
    """Three decimals; a dash for NaN, what is not there."""
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # + 0.0 makes -0.0 a plain zero


def percent(confidence: float) -> str:
    return f"{100 * confidence:g}%"


def si(value: float | None) -> str:
    """Three digits and a prefix: '12.3 k', '4.56 T'; a dash where nothing is known."""
    if value is None:
        return "\N{EN DASH}"
    for prefix in ("", " k", " M", " G", " T", " P", " E"):
        if abs(value) < 999.5 or prefix == " E":
            break
        value /= 1000
    digits = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{digits}{prefix}".replace(" ", "\N{NO-BREAK SPACE}")


def plural(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{ending}"


def headline(study: Study, comparisons: Sequence[Comparison], algorithm: str, confidence: float) -> str:
    """Does `algorithm` beat SFT, by how much, how sure. With several k: a count, then the largest k in full."""
    last = comparisons[-1]
    difference = last.difference(algorithm, "sft")
    low, high = signed(difference.interval.low), signed(difference.interval.high)
    detail = (
        f"t k = {last.k}, {name(algorithm)} scores {fixed(last.score(algorithm).reward.estimate)} against SFT's "
        f"{fixed(last.score('sft').reward.estimate)}: {signed(difference.interval.estimate)} "
        f"({percent(confidence)} interval {low} to {high}, {plural(study.num_pictures, study.unit)}, "
        f"{plural(len(study.grid.seed), 'seed')}): {difference.verdict}{difference.why and f' ({difference.why})'}."
    )
    if len(comparisons) == 1:
        return f"A{detail}"
    by_verdict = {word: [c.k for c in comparisons if c.difference(algorithm, "sft").verdict == word] for word in SAID}
    counts = ", ".join(f"{said} at {_listed(ks)}" for (word, said) in SAID.items() if (ks := by_verdict[word]))
    return f"Over {len(comparisons)} values of k, {name(algorithm)} is {counts}; a{detail}"


def _listed(ks: list[int]) -> str:
    return f"{len(ks)} (k = {', '.join(map(str, ks))})"


def span(interval: Interval, write: Callable[[float], str]) -> str:
    return f"{write(interval.low)} to {write(interval.high)}"


def summary(headlines: Sequence[str], comparisons: Sequence[Comparison], confidence: float, study: Study) -> str:
    """The verdict and the scores as aligned plain text, for a terminal."""
    interval = f"{percent(confidence)} interval"
    rows = [("k", "policy", "reward", interval, *study.headings.values(), "against SFT", "", "")]
    for comparison in comparisons:
        for score in comparison.scores:
            against = [d for d in comparison.differences if (d.policy, d.other) == (score.policy, "sft")]
            cells = [(signed(d.interval.estimate), span(d.interval, signed), d.verdict) for d in against]
            shares = map(fixed, score.metrics.values())
            reward = fixed(score.reward.estimate), span(score.reward, fixed)
            rows.append((str(comparison.k), name(score.policy), *reward, *shares, *(cells or [("", "", "")])[0]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [
        f"k = {comparison.k}, {name(difference.policy)} - SFT: {difference.why}."
        for comparison in comparisons if len(comparisons) > 1  # of one, the headline says it
        for difference in comparison.differences if difference.other == "sft" and difference.why
    ]  # fmt: skip
    about = filter(None, [existence(study), matched(study), unfinished(study)])
    return "\n".join([*headlines, "", *lines, "", *notes, *opposed(study, comparisons), *about])


def opposed(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for each k at which a task's own metric, with an interval clear of zero, goes against the reward."""
    told = [
        (comparison.k, difference, heading, difference.beside[metric])
        for comparison in comparisons
        for difference in comparison.differences
        if difference.other == "sft"
        for metric, heading in study.own.items()
    ]
    return [
        f"{name(difference.policy)}'s {heading} is {'lower' if own.estimate < 0 else 'higher'} than SFT's at k = {k}: "
        f"{signed(own.estimate)}, {span(own, signed)}."
        for k, difference, heading, own in told
        if not own.low <= 0 <= own.high and own.estimate * difference.interval.estimate < 0
    ]


def existence(study: Study) -> str:
    """Which categories a test picture was asked for; nothing where the task has no such choice."""
    return f"Categories asked (grade.existence): {study.base.existence}." if "detection" in study.tasks else ""


def extent(study: Study) -> str:
    pictures, questions = plural(study.num_pictures, f"test {study.unit}"), plural(study.num_questions, "question")
    seeds = f"{plural(len(study.grid.seed), 'seed')} ({', '.join(map(str, study.grid.seed))})"
    return f"{pictures}, {questions}, {seeds}. {existence(study)}".rstrip()


def matched(study: Study) -> str:
    """What SFT and RFT have alike (grid.matched)."""
    first, mode = name(study.grid.algorithm[0]), study.grid.matched
    said = {
        "data": f"SFT and RFT learn from the same labelled {study.unit}s; each takes steps of its own, so that "
        "gradient steps and FLOPs differ",
        "steps": f"SFT takes as many gradient steps as {first} and its warm-up took together, on the same labelled "
        f"{study.unit}s; FLOPs differ",
        "flops": f"SFT trains until it has spent the FLOPs of {first} and its warm-up, rollouts among them, on the "
        f"same labelled {study.unit}s; gradient steps differ",
    }
    return f"Matched by {mode} (grid.matched): {said[mode]}."


def unfinished(study: Study) -> str:
    """Whose runs were best on val at their last step, half of them or more; nothing where nobody's were. A comparison
    with a policy that was stopped too early tells of the steps, not of the method (docs/results.md, `genes`).
    """
    told = []
    for policy in study.grid.policy:
        runs = [run for run in study.histories if run.policy == policy and run.val]
        last = sum(run.best_step == run.val[-1]["step"] for run in runs)
        if last and 2 * last >= len(runs):
            key = "sft.steps" if policy == "sft" else "rft.steps"
            told.append(f"{name(policy)} in {last} of {len(runs)} (raise {key})")
    return f"Best on val at the last step, so that more may help: {', '.join(told)}." if told else ""


def unmeasured(params: Params, study: Study) -> str:
    """Why no curve shows the KL; nothing where one does."""
    if params.rft.beta or any("kl" in row for run in study.histories for row in run.steps):
        return ""
    return "How far RFT goes from the weights it began with (KL) is not measured: rft.beta is 0."


def shown_metrics(study: Study) -> str:
    *others, last = study.headings.values()
    return f"{', '.join(others)} and {last} are means over the seeds."


def asked(params: Params, answer: Answer) -> str:
    """The prompt of a question, as the model got it; of a job, its conversation."""
    if answer.task == "job":
        return answer.asked
    return getattr(params.prompt, answer.task).replace("{asked}", answer.asked)


def stated(answer: Answer) -> str:
    """What an answer states, in few words; of a job nobody knows."""
    if answer.task == "job":
        return "an answer"
    if answer.gold_label is None:
        return plural(len(answer.boxes), "box")
    return "nothing" if answer.label is None else f"'{answer.label}'"


def truth(answer: Answer) -> str:
    if answer.task == "job":
        return "what the grader pays"
    return plural(len(answer.gold), "box") if answer.gold_label is None else f"'{answer.gold_label}'"


def graded(answer: Answer) -> str:
    """The grade of an answer beside its question."""
    content = f"IoU {fixed(answer.content)}" if answer.gold_label is None else f"states {stated(answer)}"
    failure = f", {answer.failure.replace('_', ' ')}" if answer.failure else ""
    return f"reward {fixed(answer.reward)}, {content}{failure}"


def about_the_score(params: Params, study: Study) -> tuple[str, ...]:
    """What the score is, what its intervals cover and what they do not, in plain sentences."""
    asked = [_EXISTENCE[study.base.existence]] if "detection" in study.tasks else []
    return (*(_score(params, study, task) for task in study.tasks), *asked, _coverage(params, study))


_EXISTENCE = {
    "ground_truth": "Each test picture is asked for the categories it shows and for no other, so objects that a policy "
    "would invent of an absent category go unseen (grade.existence: ground_truth).",
    "model": "Each test picture is asked for the categories of which the base model states a box there; an object of "
    "any other counts as missed by every policy (grade.existence: model).",
    "all": "Each test picture is asked for every category, shown or not (grade.existence: all).",
}


_PARTS = {
    "iou": "overlap with the true boxes (IoU)",
    "giou": "generalised overlap (GIoU)",
    "confidence": "confidence",
    "label": "the right label",
    "answer": "the right answer",
    "count": "the count",
    "choice": "the choice",
    "format": "format",
    "length": "length",
}


def _score(params: Params, study: Study, task: str) -> str:
    if task == "job":
        return (
            "The score of a job's answer is the reward of its grader, which RFT is trained on; a policy's score is the "
            f"mean over all questions. Graded is the share of answers that no grader failed on. {_taught(params)}"
        )
    weights = getattr(params.reward, task).weights
    total = sum(weights.values())
    parts = " + ".join(f"{100 * weight / total:.0f}% {_PARTS[name]}" for name, weight in weights.items() if weight)
    beside = ", ".join(heading for metric, heading in METRICS[task].items() if metric in study.headings)
    return (
        f"The score of a {task} answer is the reward that RFT is trained on, between 0 and 1: {parts}; a policy's "
        f"score is the mean over all questions. SFT is trained to imitate answers instead, so {beside} stand beside it."
    )


def _taught(params: Params) -> str:
    """What stands behind SFT in a study that came without answers."""
    if params.sft.steps == 0:
        return "The job holds no answers that SFT could be taught, so SFT is the base model (sft.steps: 0)."
    return f"SFT is taught the answer {params.reward.job.target}."


def _coverage(params: Params, study: Study) -> str:
    seeds, ks, settings = study.grid.seed, study.ks, params.report
    if len(seeds) == 1:
        covered = (
            f"There is one seed, so the intervals cover the choice of test {study.unit}s only and say nothing about "
            "another training run"
        )
    else:
        covered = (
            f"The intervals cover the choice of test {study.unit}s and of the {len(seeds)} training seeds together; "
            f"the base model has no seed, so its own covers {study.unit}s only"
        )
    several = " Each holds for its own k; they are not widened for looking at several." if len(ks) > 1 else ""
    level, relevant = percent(1 - settings.confidence), f"{settings.relevant_difference:g}"
    return (
        f"{covered}. {_method(params, study)}{several} 'Better' and 'worse' take at least {MIN_SEEDS} seeds and a "
        f"p-value below {level}, by Holm's correction over {compared(study)}. Otherwise it is 'no difference shown' "
        f"where a true difference of {relevant} in one comparison alone would be found, after that correction, with a "
        f"probability of {percent(POWER)}, and 'too little data' where it would not, or where every "
        "answer earns what SFT's does."
    )


def _method(params: Params, study: Study) -> str:
    """What `tasks.scoring.statistics` does."""
    of_pictures, of_seeds = "variance", ""
    if len(study.grid.seed) > 1:
        of_pictures, of_seeds = "covariance of two seeds", " plus the variance between seeds over their number"
    return (
        f"A {percent(params.report.confidence)} interval is the estimate plus and minus the critical value of "
        f"Student's t times the standard error, whose square is the {of_pictures} over {params.report.resamples} "
        f"bootstrap draws of the test {study.unit}s{of_seeds}; questions about one {study.unit} are drawn together, "
        "and policies compared on the same draws."
    )


def compared(study: Study) -> str:
    """What the verdicts are corrected for: all comparisons with SFT."""
    return "the k's" if len(study.grid.algorithm) == 1 else "the k's and algorithms"


def rft(algorithms: Sequence[str]) -> str:
    """What stands for the algorithm that a reader chooses; its name where there is one."""
    return name(algorithms[0]) if len(algorithms) == 1 else "RFT"


def outcome_titles(algorithms: Sequence[str]) -> dict[str, str]:
    return {
        "rft_only": f"{rft(algorithms)} right, SFT wrong",
        "sft_only": f"SFT right, {rft(algorithms)} wrong",
        "neither": "Both wrong",
        "both": "Both right",
    }


def about_the_selection(params: Params, study: Study, num_shown: int, num_drawn: int) -> str:
    """How the cases were chosen: at each k, of the first seed."""
    at, algorithms = "each k" if len(study.ks) > 1 else f"k = {study.ks[0]}", study.grid.algorithm
    each = f" of each of {', '.join(map(name, algorithms))} beside SFT," if len(algorithms) > 1 else ""
    places = max(1, params.report.num_pictures // len(algorithms))
    left_out = f" The last {num_drawn - num_shown} are left out: the page would be too large." * (num_drawn > num_shown)
    return (
        f"Nobody picked these {num_shown} cases. The {study.num_questions} questions at {at}, seed "
        f"{study.grid.seed[0]},{each} fall into four kinds by whose answer is right (an IoU or label sub-reward above "
        f"{RIGHT:g}). {places} places are dealt to the four kinds in turn and filled in the order "
        f"of a hash of the question.{left_out} So each kind has as many cases as it can; how often it comes among all "
        "questions:"
    )
