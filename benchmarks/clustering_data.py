"""Devices whose groups are known: rows of a data set, laid on devices with a skew of labels."""

import csv
from pathlib import Path

import numpy as np

from elsa.data.sources import load_split

SHARE = 0.8
"""Part of a device's rows that are of its group's own classes; the rest is of all classes."""


def write_skewed(folder: Path, asset: str, devices: int, groups: int, rows: int, seed: int) -> None:
    """Write train.csv, with the device of each row, and test.csv.

    The classes are dealt to the groups, the largest first, each to the group with the fewest rows
    so far. Device n is of group n mod groups, takes `SHARE` of its rows from its group's classes
    and the rest from all, by how frequent they are; no row is on two devices.
    """
    train, test = load_split(asset, seed=seed)
    assert train.label is not None
    counts = np.bincount(train.label)
    group_of = np.zeros(len(counts), np.int64)
    total = np.zeros(groups)
    for place in np.argsort(-counts, kind="stable"):
        group_of[place] = total.argmin()
        total[total.argmin()] += counts[place]
    left = np.random.default_rng((seed, int.from_bytes(b"skew"))).permutation(len(train)).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    own = round(SHARE * rows)
    of_group = [[row for row in left if group_of[train.label[row]] == it] for it in range(groups)]
    taken: set[int] = set()
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["text", "label", "device"])
        for device in range(devices):
            pools = (of_group[device % groups], own), (left, rows - own)
            for pool, count in pools:
                free = [row for row in pool if row not in taken][:count]
                taken.update(free)
                for row in free:
                    name = train.label_names[train.label[row]]
                    out.writerow([train.text[row], name, f"{device:03d}"])
    with (folder / "test.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["text", "label", "device"])
        assert test.label is not None
        for row in range(len(test)):
            out.writerow([test.text[row], test.label_names[test.label[row]], "test"])
