"""Correlations as scipy gives them, ties and all. Run by hand, with scipy 1.17: python tests/golden/make_metrics.py

The columns follow from a formula that crates/claptune/tests/suite/metrics.rs has, too. It writes metrics.json beside it.
"""
import json
import pathlib

import numpy as np
from scipy import stats


def formula(n, kind):
    i = np.arange(n, dtype=np.int64)
    a, b = (i * i * 7919 + i * 31 + 7) % 10007, (i * i * 104729 + i * 17 + 3) % 10009
    x, y = a / 5003 - 1, (a + b) / 10008 - 1
    if kind == "ratings":  # whole points against a cosine
        y = np.floor((y + 1) * 5.5)
    elif kind == "ties":  # few values on both sides
        x, y = np.floor(x * 3), np.floor(y * 3)
    elif kind == "offset":  # a small spread far from zero
        x, y = x * 1e-3 + 1e3, y * 1e-3 - 1e3
    elif kind == "opposed":
        y = -x
    elif kind == "constant":
        y = np.full(n, 3.0)
    return x, y


def value(number):
    return None if np.isnan(number) else float(number)


cases = []
for kind in ["plain", "ratings", "ties", "offset", "opposed", "constant"]:
    for n in [2, 3, 10, 257, 1311, 5000]:
        x, y = formula(n, kind)
        with np.errstate(all="ignore"):
            found = [stats.spearmanr(x, y).statistic, stats.pearsonr(x, y).statistic,
                     stats.kendalltau(x, y, variant="b").statistic, np.mean((x - y) ** 2)]
        cases.append({"kind": kind, "n": n, **dict(zip(["srcc", "lcc", "ktau", "mse"], map(value, found)))})

rates = []
for count, hours in [(0, 1.0), (1, 2.5), (7, 24.0), (300, 10.0), (2000, 100.0)]:
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    rates.append({"count": count, "hours": hours, "low": low / hours, "high": stats.chi2.ppf(0.975, 2 * count + 2) / 2 / hours})
shares = []
for part, whole in [(0, 5), (3, 5), (5, 5), (70, 400)]:
    interval = stats.binomtest(part, whole).proportion_ci(method="wilson")
    shares.append({"part": part, "all": whole, "low": interval.low, "high": interval.high})

out = {"cases": cases, "rates": rates, "shares": shares}
pathlib.Path(__file__).with_name("metrics.json").write_text(json.dumps(out, indent=1) + "\n")
