"""The job as an NVFlare simulation: FedAvg, the Job API, clients as processes.

python nvflare_job.py JOB_FOLDER RESULT.json WORKSPACE --precision float32 --at-once 2
"""

import argparse
from pathlib import Path

from learning import read
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner
from nvflare.recipe.sim_env import SimEnv
from nvflare_server import EvaluatedFedAvg

HERE = Path(__file__).parent.resolve()


def main() -> None:
    """Run it; the server writes its outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--at-once", type=int, required=True, help="clients that run at a time")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    job = read(folder / "job.json")
    federated = FedJob(name="peers", min_clients=job["devices"])
    controller = EvaluatedFedAvg(
        str(folder),
        str(options.result.resolve()),
        options.precision,
        num_clients=job["devices"],
        num_rounds=job["rounds"],
    )
    federated.to_server(controller)
    for script in ("learning.py", "outcome.py"):
        federated.to_server(str(HERE / script))
    runner = ScriptRunner(
        script=str(HERE / "nvflare_client.py"),
        script_args=f"{folder} {options.precision}",
        framework=FrameworkType.NUMPY,
    )
    federated.to_clients(runner)
    federated.to_clients(str(HERE / "learning.py"))
    environment = SimEnv(
        num_clients=job["devices"],
        num_threads=options.at_once,
        workspace_root=str(options.workspace.resolve()),
    )
    environment.deploy(federated)


if __name__ == "__main__":
    main()
