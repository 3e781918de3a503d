"""FedAvg of NVFlare with the global adapters evaluated at the server after every round."""

from pathlib import Path

import torch
from learning import initial, learner_of
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.fuel.utils import fobs
from outcome import Outcome


class EvaluatedFedAvg(FedAvg):
    """Starts from the job's adapters; `save_model` evaluates instead of saving."""

    # NVFlare reads a controller's arguments off its attributes, so each has a name here.
    def __init__(
        self, folder: str, result: str, precision: str, num_clients: int, num_rounds: int
    ) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds)
        self.folder = folder
        self.result = result
        self.precision = precision

    def run(self) -> None:
        """Load the adapters, then as NVFlare does."""
        given = initial(Path(self.folder))
        self.model = FLModel(params={name: value.numpy() for name, value in given.items()})
        self._outcome = Outcome(Path(self.result))
        super().run()
        self._outcome.check(self.num_rounds)

    def save_model(self, model: FLModel) -> None:
        """Evaluate the adapters of the round."""
        given = {name: torch.as_tensor(value) for name, value in model.params.items()}
        learner = learner_of(Path(self.folder), self.precision)
        accuracy, loss = learner.evaluate(given)
        one = len(fobs.dumps(model.params)) * self.num_clients
        self._outcome.add(accuracy, loss, up=one, down=one)
