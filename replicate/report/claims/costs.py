"""Claims of sections 2.4 and 4.3 about what models and coherence cost: time per epoch and model size (Table 2)."""

from replicate import reference
from replicate.columns import COLUMNS
from replicate.report.claims.claim import Claim, lacking
from replicate.report.claims.verdicts import INCONCLUSIVE, REFUTED, SUPPORTED, Judgement, untestable
from replicate.report.records import Records
from replicate.report.render import count, with_sign

MODELS = tuple(slug for slug, column in COLUMNS.items() if column.baseline and column.trained)
SMALL = 0.10  # of an epoch's time; the paper's largest overhead is 8 of 102 minutes
SAME_SIZE = 0.05  # MB: sizes that differ by less are printed alike with one decimal


def _needs(records: Records) -> str | None:
    return lacking(records, [slug for column in MODELS for slug in (COLUMNS[column].baseline, column)], trained=False)


def _overhead(records: Records) -> Judgement:
    reason = _needs(records)
    if reason:
        return untestable(reason)
    rows = []
    for column in MODELS:
        pair = [records.time.get(slug) for slug in (column, COLUMNS[column].baseline)]
        if None in pair:
            return untestable("The run did not time every column.")
        ours, before = ([repeat["seconds_per_step"] for repeat in timed.repeats] for timed in pair)
        effect = pair[0].seconds_per_step / pair[1].seconds_per_step - 1
        rows.append((effect, min(ours) / max(before) - 1, max(ours) / min(before) - 1, COLUMNS[column].title))
    slowest = max(rows)
    below = sum(high < SMALL for _, _, high, _ in rows)
    verdict = (
        SUPPORTED if below == len(rows) else REFUTED if any(low > SMALL for _, low, _, _ in rows) else INCONCLUSIVE
    )
    listed = ", ".join(f"{title} {with_sign(100 * effect, 1)} %" for effect, _, _, title in rows)
    minutes = reference.table2()
    papers = max(minutes[column][0] / minutes[COLUMNS[column].baseline][0] - 1 for column in MODELS)
    return Judgement(verdict, f"{listed}.", slowest[0], slowest[1:3], None, papers, "repeats of the timing")


def _size(records: Records) -> Judgement:
    reason = _needs(records)
    if reason:
        return untestable(reason)
    bytes_of = {column: record.weights_bytes for (column, _), record in records.train.items()}
    if not all(slug in bytes_of for column in MODELS for slug in (column, COLUMNS[column].baseline)):
        return untestable("The run has no training record of every column.")
    added = {column: (bytes_of[column] - bytes_of[COLUMNS[column].baseline]) / 1e6 for column in MODELS}
    largest = max(added.values())
    listed = ", ".join(f"{COLUMNS[column].title} {with_sign(1000 * each, 2)} kB" for column, each in added.items())
    verdict = SUPPORTED if largest < SAME_SIZE else REFUTED
    return Judgement(verdict, f"{listed}. A count, no sample.", largest, None, None, 0.0, None)


def _compact(records: Records) -> Judgement:
    """The Transformer's megabytes and epochs beside the attention RNN's."""
    reason = lacking(records, ["rnn_attn", "tm"], trained=False)
    if reason:
        return untestable(reason)
    pairs = [[records.train.get((slug, seed)) for slug in ("tm", "rnn_attn")] for seed in records.run.seeds]
    if any(each is None for pair in pairs for each in pair):
        return untestable("The run has no training record of both columns.")
    megabytes = [each.weights_bytes / 1e6 for each in pairs[0]]
    epochs = [sum(pair[side].best_epoch for pair in pairs) / len(pairs) for side in (0, 1)]
    apart = megabytes[0] - megabytes[1]
    verdict = REFUTED if apart >= 0 else SUPPORTED if epochs[0] <= epochs[1] else INCONCLUSIVE
    evidence = (
        f"TM has {megabytes[0]:.2f} MB, RNN-Attn {megabytes[1]:.2f} MB; best after "
        f"{count(epochs[0], 'epoch')}, RNN-Attn after {epochs[1]:g}. A count, no sample."
    )
    sizes = reference.table2()
    return Judgement(verdict, evidence, apart, None, None, sizes["tm"][1] - sizes["rnn_attn"][1], None)


CLAIMS = [
    Claim(
        name="overhead-small",
        text="Coherence adds little training time per epoch (2 to 8 minutes of 65 to 130).",
        section="4.3, Table 2",
        statistic="seconds per training step of TC-X over X, minus 1; the interval spans the repeats, fastest against "
        "slowest",
        rule=f"supported when every model's interval lies below {SMALL:.0%}; refuted when one lies above; else "
        "inconclusive; shown is the slowest",
        unit="percent",
        judge=_overhead,
    ),
    Claim(
        name="size-unchanged",
        text="Coherence leaves the model size practically the same.",
        section="4.3, Table 2",
        statistic="bytes of weights of TC-X minus X",
        rule=f"supported when every model grows by less than {SAME_SIZE} MB, so that Table 2 would print the same; "
        "else refuted; a count, so there is no interval",
        unit="megabytes",
        judge=_size,
    ),
    Claim(
        name="transformer-compact",
        text="The Transformer is more space-efficient than the RNN and converges faster.",
        section="2.4",
        statistic="megabytes of TM's weights minus RNN-Attn's, and the epochs after which each was best; the paper's "
        "own Table 2 has the Transformer larger",
        rule="supported when TM is smaller and best no later; refuted when it is not smaller; else inconclusive; a "
        "count, so there is no interval",
        unit="megabytes",
        judge=_compact,
    ),
]
