import json
from io import StringIO
from typing import Any

from rich.console import Console

from elsa.cli.planned import show, to_json
from elsa.engine.plan import make_plan

TOO_SMALL = ("split.mode=fitted", "network.device_memory_mb=[0.001, 500, 500]")


def shown(plan: Any) -> str:
    console = Console(width=160, record=True, file=StringIO())
    show(plan, console)
    return console.export_text()


def test_each_device_has_a_row_and_each_tier_a_total(make: Any) -> None:
    plan = make_plan(make("network.device_memory_mb=[500]"))
    text = shown(plan)
    for row in plan.devices:
        (line,) = [it for it in text.splitlines() if it.startswith(row.device)]
        assert f"{row.bottom}/{row.trunk}/{row.top}" in line
        assert "500.0 MB" in line
        assert "as the config says" in line
    assert "edge-0, 2 devices" in text
    assert "edge-1, 1 devices" in text


def test_who_cannot_take_part_is_named_with_what_is_lacking(make: Any) -> None:
    plan = make_plan(make(*TOO_SMALL))
    (row,) = [it for it in plan.devices if not it.fits]
    text = shown(plan)
    assert f"1 of 3 devices cannot take part: {row.device}" in text
    (line,) = [it for it in text.splitlines() if it.startswith(row.device)]
    assert "cannot take part: lacks 0." in line


def test_json_holds_rows_and_totals(make: Any) -> None:
    plan = make_plan(make(*TOO_SMALL))
    read = json.loads(to_json(plan))
    assert [it["device"] for it in read["devices"]] == [it.device for it in plan.devices]
    assert read["totals"]["devices"]["up"] == sum(it["round_up"] for it in read["devices"])
    assert read["seconds"] == plan.seconds
