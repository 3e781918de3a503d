"""100,000 malformed frames and requests out of order, against a real edge: does it stay up?

One device of two is hostile: it sends frames that were good until bytes were changed, cut out or
put in; noise; and good frames in any order, with any round, step, token or shape. What it sends
goes through the very function that a stream's thread calls. The other device trains meanwhile, and
every round must end with its update. Memory is taken after every round.

    python benchmarks/hostile.py --frames 100000 --out docs/results/hostile.json
"""

import argparse
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch
from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.core.codec import Frame, Identity, Packet
from elsa.engine.build import assignment_of, build_federation, edge_of, open_sources
from elsa.engine.codecs import hop_codecs
from elsa.engine.conversation import Conversation
from elsa.engine.deploy import rounds as waiting
from elsa.engine.deploy.rounds import CLOUD, EdgeRounds
from elsa.engine.deploy.terms import check_terms, terms_of
from elsa.engine.deploy.tokens import showing
from elsa.engine.machine import prepare
from elsa.roles.exchange import expect
from elsa.wire.inprocess import InProcess
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeUpdate,
    Gradients,
    LocalPlan,
    Message,
    Next,
    Ready,
    Refusal,
    Register,
    Resend,
    RoundOrder,
    Score,
    Task,
    Update,
    Welcome,
)
from elsa.wire.places import Move, Ping, RollCall, Route
from elsa.wire.serde import decode, encode
from elsa.wire.transport import Link, serve
from elsa.wire.watching import Verdicts

BAD, GOOD = "device-0", "device-1"
LABELS = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
ROUNDS = 20
FRAMES = 20
"""Frames of the hostile device between two orders."""


def settings() -> Config:
    """Of one edge and two devices."""
    return load_config(
        None,
        [
            "federation.devices=2",
            "federation.edges=1",
            "federation.edge_rounds=1",
            "federation.local_steps=2",
            "partition.kind=iid",
            "data.limit=60",
            "data.holdout_fraction=0.0",
            f"data.labels={LABELS}",
            "model.precision=float32",
            "wire.preset=exact",
            "train.batch_size=4",
            "run.threads=1",
        ],
    )


class Hostile:
    """Makes frames; what it draws follows from a seed."""

    def __init__(self, terms: dict[str, str], hidden: int, seed: int) -> None:
        self._draw = random.Random(seed)
        self._hidden = hidden
        self._terms = terms
        self.token = ""
        self.round = 0

    def entrance(self, register: Register) -> Iterator[Message]:
        """How an honest device begins, as far as this one cares to."""
        numbers, packet = self._draw, Identity().encode(torch.zeros(3, self._hidden), Frame((2, 1)))
        yield register
        while numbers.random() < 0.1:
            yield Next()
        yield Ready(self.round, 0, 1, 1)
        for step in range(numbers.randrange(3)):
            yield Activations(step, True, (2, 1), packet, (), self.token)
            if numbers.random() < 0.5:
                return
            yield Gradients(step, packet, token=self.token)

    def frame(self) -> bytes:
        """The next one."""
        data = bytearray(encode(self._message()))
        if self._draw.random() < 0.5:
            return bytes(data)  # good in itself, but out of order
        for _ in range(self._draw.randint(1, 4)):
            place = self._draw.randrange(max(len(data), 1))
            match self._draw.randrange(5):
                case 0:
                    data[place : place + 1] = self._draw.randbytes(1)
                case 1:
                    del data[place : place + self._draw.randint(1, 40)]
                case 2:
                    data[place:place] = self._draw.randbytes(self._draw.randint(1, 9))
                case 3:
                    del data[place:]
                case _:
                    data = bytearray(self._draw.randbytes(self._draw.randint(0, 300)))
        return bytes(data)

    def _message(self) -> Message:
        draw = self._draw
        round_, step = draw.randrange(ROUNDS), draw.randrange(3)
        token = draw.choice([self.token, self.token, "", "0" * 32])
        tensor = torch.full(
            draw.choice([(2, 3), (6, self._hidden), (1,), (8, self._hidden)]),
            draw.choice([0.0, 1e30, torch.nan, torch.inf]),
        )
        adapters = {draw.choice(["head.weight", "classifier.weight", "x"]): tensor}
        makes: list[Callable[[], Message]] = [
            lambda: Register(self._terms, (Route("edge-0", 0.1, draw.uniform(-9, 9)),)),
            lambda: Register({"a": "b"}),
            Ping,
            Next,
            lambda: Ready(round_, 0, draw.randrange(8), draw.randrange(8), rank=draw.randrange(20)),
            lambda: Ready(self.round, 0, 1, 1),
            lambda: Activations(step, draw.random() < 0.8, (2, 1), self._packet(), (), token),
            lambda: Gradients(step, self._packet(), token=token),
            lambda: Resend(step, token),
            lambda: Update(round_, 0, adapters, draw.randrange(2**40), 5, 0.5, token),
            lambda: Score(round_, 5, 5, 0.5, token=token),
            lambda: RoundOrder(round_, 1, 1, (BAD,), adapters),
            lambda: RollCall((Move(GOOD, "edge-9"),)),
            lambda: Verdicts(round_, 0, ()),
            lambda: Task("end", 0, 0),
            Accepted,
        ]
        return draw.choice(makes)()

    def _packet(self) -> Packet:
        value = self._draw.choice([0.1, 1e38, torch.nan])
        hidden = self._draw.choice([self._hidden, self._hidden, 3])
        return Identity().encode(torch.full((3, hidden), value), Frame((2, 1)))


def attack(frames: int, seed: int) -> dict[str, Any]:
    """Send so many; what became of them, and of everybody else."""
    config = settings()
    sources = open_sources(config)
    model, hidden = sources.model, sources.model.checkpoint.hidden_size
    federation = build_federation(config, sources)
    ours = terms_of(config, model, LABELS)

    def welcome(peer: str, request: Register) -> Welcome:
        check_terms(ours, request.terms, "edge-0", peer)
        return Welcome({})

    edge = edge_of(config, model, "edge-0", lambda _: hop_codecs(config.wire, hidden))
    patience = config.deploy
    waiting.HOLD = 0.001  # a free device is told so at once
    rounds = EdgeRounds(edge, assignment_of(config)["edge-0"], welcome, patience)
    link = InProcess(rounds.handle, Link("device_edge", GOOD, "edge-0"), (), rounds.lose)
    expect(Welcome, link.call(Register(ours)))
    hostile, outcomes = Hostile(ours, hidden, seed), Counter[str]()
    sent, finished, began = 0, 0, perf_counter()
    memory: list[int] = []
    cloud = federation.cloud
    for round_ in range(ROUNDS):
        (order,) = cloud.orders().values()
        hostile.round = round_
        while sent < frames * (round_ + 1) // ROUNDS:
            # It is let in, and may take a step or two in order before it does what it likes.
            driving = obey(rounds, replace(order, devices=(BAD,)), [])
            before = hostile.entrance(Register(ours))
            for _ in range(FRAMES):
                outcomes[send(rounds, hostile, next(before, None))] += 1
                sent += 1
            rounds.lose(BAD, "LinkError: the benchmark goes on")
            driving.join()
        told: list[Message] = []
        driving = obey(rounds, replace(order, devices=(GOOD,)), told)
        task = Task("wait", 0, 0)
        while task.what == "wait":
            task = expect(Task, link.call(Next()))
        device = federation.devices[GOOD]
        talk: Conversation[Any] = Conversation(showing(device.train(task.round, 0)), link)
        while not talk.over:
            talk.advance()
        driving.join()
        update = expect(EdgeUpdate, told[0])
        finished += any(it.device == GOOD and not it.lost for it in update.reports)
        cloud.receive("edge-0", update)
        cloud.close_round()
        memory.append(psutil.Process().memory_info().rss)
    rounds.close()
    return {
        "frames": sent,
        "seed": seed,
        "outcomes": dict(outcomes.most_common()),
        "crashes": outcomes["WireError"],
        "rounds_of_the_other_device": f"{finished} of {ROUNDS}",
        "rss_mb_after_first_round": memory[0] / 1e6,
        "rss_mb_at_the_end": memory[-1] / 1e6,
        "rss_mb_at_most": max(memory) / 1e6,
        "seconds": perf_counter() - began,
    }


def obey(rounds: EdgeRounds, order: RoundOrder, told: list[Message]) -> threading.Thread:
    """Have an order carried out, as the cloud's stream does."""
    thread = threading.Thread(target=lambda: told.append(rounds.handle(CLOUD, order)))
    thread.start()
    return thread


def send(rounds: EdgeRounds, hostile: Hostile, proper: Message | None) -> str:
    """Bring a frame to the edge as a stream does; the kind of answer."""
    frame = hostile.frame() if proper is None else encode(proper)
    answer = decode(serve(rounds.handle, BAD, frame, rounds.lose))
    if isinstance(answer, LocalPlan):
        hostile.token = answer.token
    if isinstance(answer, Refusal):
        if answer.error == "FrameError":  # its session is ended; it begins anew
            rounds.began(BAD)
        return answer.error
    return type(answer).__name__


def main() -> None:
    """Attack, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare(1)
    logging.disable(logging.WARNING)
    found = attack(options.frames, options.seed)
    print_table([{key: value for key, value in found.items() if key != "outcomes"}])
    print_table([{"answer": key, "times": value} for key, value in found["outcomes"].items()])
    if options.out:
        write_json(options.out, {"machine": machine(), **found})


if __name__ == "__main__":
    main()
