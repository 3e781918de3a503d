"""The job as a Flower simulation: FedAvg, Ray's backend, one core a client.

python flower_job.py JOB_FOLDER RESULT.json --precision float32
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from flower_client import app
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from learning import initial, learner_of, read
from outcome import Outcome

server = ServerApp()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and write its outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    job = read(folder / "job.json")
    outcome = Outcome(options.result)

    def evaluated(round_: int, arrays: ArrayRecord) -> MetricRecord | None:
        if not round_:
            return None
        learner = learner_of(folder, options.precision)
        accuracy, loss = learner.evaluate(arrays.to_torch_state_dict())
        one = sum(len(array.data) for array in arrays.values())
        outcome.add(accuracy, loss, up=one * job["devices"], down=one * job["devices"])
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    @server.main()
    def serve(grid: Grid, _: Context) -> None:
        devices = job["devices"]
        strategy = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(initial(folder)),
            num_rounds=job["rounds"],
            train_config=ConfigRecord({"folder": str(folder), "precision": options.precision}),
            evaluate_fn=evaluated,
        )

    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=job["devices"],
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": job["threads"]},
        },
    )
    outcome.check(job["rounds"])


if __name__ == "__main__":
    main()
