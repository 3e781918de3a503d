"""Over Flower: an edge is killed while its device computes, the cloud while the answer is due."""

from functools import partial
from pathlib import Path

from faults import events, settings
from parties import KILL, Parties, Strike, struck

ALONE = (
    "model.max_tokens=32",
    "data.text=question",
    "data.label=kind",
    "adapter.rank=2",
    "federation.edges=1",
    "federation.devices=1",
    "federation.rounds=1",
    "evaluate.every=1",
    "deploy.link=flower",
    "deploy.answer_seconds=120",
    "deploy.reconnect_seconds=120",
    "deploy.round_seconds=600",
)
PATIENCE = 600.0
"""Seconds; on a busy machine Flower takes minutes to start."""


def has_struck(folder: Path, times: int) -> bool:
    return len(struck(folder)) == times


def has_ended(parties: Parties, name: str) -> bool:
    return parties.ended(name) is not None


def test_killed_edge_and_killed_cloud_are_given_the_round_again_and_it_ends(
    questions: Path, bert: Path, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    labels = sorted({label for _, label in rows})
    own = (f"model.path={bert}", f"data.path={questions}", f"data.labels={labels}", *ALONE)
    strikes = (
        Strike("device-0", "Gradients", 1, KILL, "edge-0"),
        Strike("device-0", "Update", 0, KILL, "cloud"),
    )
    with Parties(settings(*own), tmp_path, *strikes) as parties:
        parties.start()
        for number, strike in enumerate(strikes, 1):
            parties.wait(partial(has_struck, tmp_path, number), PATIENCE, f"{strike}")
            parties.wait(partial(has_ended, parties, strike.victim), 60, "its end")
            parties.start(strike.victim)
        for name in ("cloud", "edge-0", "device-0"):
            parties.wait(partial(has_ended, parties, name), PATIENCE, f"the end of {name}")
            assert parties.ended(name) == 0, parties.log(name)
        device, edge = parties.log("device-0"), parties.log("edge-0")
        assert parties.log("cloud").count("find the cloud at") == 2
    told = events(tmp_path)
    assert [it["round"] for it in told if it["kind"] == "round_finished"] == [0]
    assert not [it for it in told if it["kind"] == "device_lost"]
    assert device.count("device-0 is at edge-0") == 2  # the edge that came back knew nobody
    assert device.count("train 0.0 begins") == 3
    assert edge.count("starting Flower's SuperNode") == 2  # which found the new cloud by itself
    assert "EvaluationOrder" not in edge  # nobody keeps rows for it
