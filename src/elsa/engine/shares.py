"""Which rows each device of a task holds."""

from elsa.config.schema import Config
from elsa.data.partition import Rows, partition
from elsa.data.unusual import set_apart
from elsa.engine.tasks import TaskParts


def shares_of(config: Config, task: TaskParts, devices: int) -> list[Rows]:
    """Row numbers of each device: the ordinary ones, then those of little, then of rare data."""
    layout, table, seed = config.partition, task.text.train, task.seed(config.run.seed)
    apart = set_apart(
        len(table),
        table.label,
        rare=layout.rare_devices,
        small=layout.small_devices,
        small_rows=layout.small_rows,
        seed=seed,
    )
    ordinary = apart.ordinary
    shares = partition(
        len(ordinary),
        layout.kind,
        devices - layout.rare_devices - layout.small_devices,
        seed,
        alpha=layout.alpha,
        min_rows=layout.min_rows,
        labels=None if table.label is None else table.label[ordinary],
        groups=None if table.group is None else [table.group[row] for row in ordinary],
    )
    return [*(ordinary[share] for share in shares), *apart.small, *apart.rare]
