"""Laying rows on devices, with the partitioners of flwr-datasets on a local dataset.

They work on an in-memory `datasets.Dataset` that holds only row numbers and classes or owners; no
text is copied, nothing is written, and neither network nor telemetry is touched (that is done by
`FederatedDataset`, which is not used). The import takes seconds, so it happens on first use.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from elsa.errors import DataError

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

Rows = NDArray[np.int64]
Kind = Literal["iid", "dirichlet", "group", "natural"]

_PACKAGE, _PLOTS = "flwr_datasets", "visualization"

_REDRAWS = 20
"""Dirichlet partitioners tried; each draws up to 11 times by itself."""


def partition(
    rows: int,
    kind: Kind,
    devices: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_rows: int = 1,
    labels: Rows | None = None,
    groups: Sequence[str] | None = None,
) -> list[Rows]:
    """Row numbers of each device: every row on exactly one device.

    - "iid": shuffled, equal shares.
    - "dirichlet": of each class, shares drawn from Dirichlet(alpha) over the devices (Yurochkin et
      al., arXiv 1905.12022; Hsu et al., arXiv 1909.06335), without the partitioner's
      self-balancing: it would cut the shares of the classes that come last and blur what alpha
      means. So devices differ in size too; averaging weighs them by it.
    - "group": whole groups, shuffled, an equal number of groups a device (give or take one).
    - "natural": one group a device, in sorted order.

    Args:
        rows: R, how many rows there are.
        kind: see above.
        devices: N, how many devices.
        seed: of every draw; the result depends on nothing else.
        alpha: Dirichlet concentration: large is like iid, small gives devices of few classes.
        min_rows: rows that every device gets at least.
        labels: [R] class numbers, for "dirichlet".
        groups: R group names, for "group" and "natural".

    Returns:
        N arrays of row numbers (int64, sorted).

    Raises:
        DataError: the labels or groups that the kind needs are not there, or some device would get
            fewer than `min_rows` rows; says which setting to change.
    """
    if devices * min_rows > rows:
        raise DataError(
            f"{rows} rows cannot give {devices} devices {min_rows} rows each: lower "
            "federation.devices or partition.min_rows, or give more rows"
        )
    if kind == "dirichlet":
        if labels is None:
            raise DataError("partition.kind = 'dirichlet' needs labels, and these rows have none")
        return _dirichlet(labels, devices, seed, alpha, min_rows)
    if kind == "iid":
        shares = _iid(rows, devices, seed)
    else:
        if groups is None:
            raise DataError(
                f"partition.kind = '{kind}' needs data.group, and these rows have no groups"
            )
        shares = _by_group(groups, kind, devices, seed)
    smallest = min(range(devices), key=lambda device: len(shares[device]))
    if len(shares[smallest]) < min_rows:
        raise DataError(
            f"partition.kind = '{kind}' gives device {smallest} only {len(shares[smallest])} rows, "
            f"fewer than partition.min_rows = {min_rows}: lower it, or lower federation.devices"
        )
    return shares


def _iid(rows: int, devices: int, seed: int) -> list[Rows]:
    shuffled = np.random.default_rng((seed, 0)).permutation(rows)
    return _shares(_partitioners().IidPartitioner(devices), devices, {"row": shuffled})


def _dirichlet(labels: Rows, devices: int, seed: int, alpha: float, min_rows: int) -> list[Rows]:
    columns, partitioners = {"row": np.arange(len(labels)), "label": labels}, _partitioners()
    for draw in np.random.SeedSequence(seed).generate_state(_REDRAWS):
        partitioner = partitioners.DirichletPartitioner(
            devices,
            "label",
            alpha=float(alpha),
            min_partition_size=min_rows,
            self_balancing=False,
            seed=int(draw),
        )
        try:
            with warnings.catch_warnings():  # it warns at each redraw, which is asked for here
                warnings.filterwarnings("ignore", "The specified min_partition_size")
                return _shares(partitioner, devices, columns)
        except ValueError as exc:
            if "max number of attempts" not in str(exc):
                raise
    raise DataError(
        f"no Dirichlet(alpha = {alpha}) draw of {len(labels)} rows gave each of {devices} devices "
        f"partition.min_rows = {min_rows} rows: lower partition.min_rows or federation.devices, "
        "raise partition.alpha, or give more rows"
    )


def _by_group(groups: Sequence[str], kind: Kind, devices: int, seed: int) -> list[Rows]:
    """One owner number a device, then the natural partition over owners.

    `GroupedNaturalIdPartitioner` alone cannot give a wanted number of devices: it takes a group
    size, and 9 groups for 6 devices have none. With one id a share it equals
    `NaturalIdPartitioner`, without that one's progress bar.
    """
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    if kind == "natural" and len(names) != devices:
        raise DataError(
            f"partition.kind = 'natural' makes one device of each group: data.group has "
            f"{len(names)} groups, federation.devices = {devices}. Set federation.devices = "
            f"{len(names)}, or partition.kind = 'group' for several groups a device"
        )
    if len(names) < devices:
        raise DataError(
            f"data.group has {len(names)} groups for federation.devices = {devices}: lower it to "
            f"at most {len(names)}, or choose another partition.kind"
        )
    owner = np.empty(len(names), np.int64)
    order = np.random.default_rng((seed, 1)).permutation(len(names))
    for device, share in enumerate(np.array_split(order, devices)):
        owner[share] = device
    if kind == "natural":
        owner = np.arange(devices)
    natural = _partitioners().GroupedNaturalIdPartitioner
    partitioner = natural("owner", 1, mode="strict", sort_unique_ids=True)
    return _shares(partitioner, devices, {"row": np.arange(len(of_row)), "owner": owner[of_row]})


def _shares(partitioner: "Partitioner", devices: int, columns: dict[str, Rows]) -> list[Rows]:
    from datasets import Dataset

    partitioner.dataset = Dataset.from_dict(columns)
    return [
        np.sort(np.asarray(partitioner.load_partition(device)["row"][:], dtype=np.int64))
        for device in range(devices)
    ]


def _partitioners() -> Any:
    """The partitioners of flwr-datasets, without its plots: these take seconds and 100 MB more."""
    plots = f"{_PACKAGE}.{_PLOTS}"
    if _PACKAGE not in sys.modules and plots not in sys.modules:
        sys.modules[plots] = ModuleType(plots)
        try:
            delattr(importlib.import_module(_PACKAGE), _PLOTS)
        finally:
            del sys.modules[plots]  # who wants them imports them then
    return importlib.import_module(f"{_PACKAGE}.partitioner")
