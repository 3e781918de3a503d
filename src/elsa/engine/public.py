"""Public texts: the probes that clusters and trust go by, and those that give the wire its axes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from elsa.config.schema import Config
from elsa.config.words import needs_public_text
from elsa.data.assets import find_asset
from elsa.data.catalogue import ASSETS
from elsa.data.sources import load_table
from elsa.data.table import Columns
from elsa.errors import AssetError, ConfigError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Public:
    """Public texts that a config names.

    Attributes:
        key: of the config, that names them; that of their column is `key` + "_text".
        path: name of an asset, or a file.
        column: of the text in a file.
        spared: settings that need none of them.
    """

    key: str
    path: str
    column: str
    spared: str

    def texts(self, say: Say = lambda _: None) -> tuple[str, ...]:
        """Read them.

        Args:
            say: told about downloads.

        Raises:
            ConfigError: no asset of texts and no file has that name.
            AssetError: the asset cannot be fetched.
            DataError: the file cannot be used.
        """
        asset = find_asset(self.path)
        if (asset is None and not Path(self.path).exists()) or (asset and asset.kind != "table"):
            tables = ", ".join(name for name, known in ASSETS.items() if known.kind == "table")
            raise ConfigError(
                f"{self.key} = '{self.path}' names no public texts: it is no file that is there, "
                f"and none of the assets {tables}"
            )
        columns = Columns(text=self.column, label="", keys=f"{self.key}_")
        try:
            return load_table(self.path, columns, say=say).text
        except AssetError as error:
            raise AssetError(
                f"{self.key} = '{self.path}', public text that this config needs, cannot be had: "
                f"{error}. Or name a file of public texts of your own in {self.key} (CSV, JSONL "
                f"or Parquet, column {self.key}_text); or set {self.spared}, which needs none"
            ) from error


def axes_text(config: Config) -> Public:
    """The texts whose hidden states give the wire its axes."""
    return Public(
        "wire.public",
        config.wire.public,
        config.wire.public_text,
        "wire.preset = 'exact', without codecs of its own for h1 and h2",
    )


def probe_text(config: Config) -> Public:
    """The probes."""
    return Public(
        "cluster.probes",
        config.cluster.probes,
        config.cluster.probes_text,
        "cluster.strategy = 'none' and cluster.trust = false",
    )


def turns_onto_axes(config: Config) -> bool:
    """Whether any codec of the run does; a model that is whole sends no hidden states."""
    return config.split.layout != "whole" and bool(needs_public_text(config.wire))


def check_public(config: Config, say: Say = lambda _: None) -> None:
    """Fetch and read all public texts that a run will need, before anything that takes long.

    Raises:
        ElsaError: they cannot be had, or used.
    """
    cluster = config.cluster
    if turns_onto_axes(config):
        axes_text(config).texts(say)
    if cluster.trust or cluster.strategy in ("behaviour", "mixed"):
        probe_text(config).texts(say)
