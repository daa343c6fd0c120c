"""pfl-research on PyTorch, run by an interpreter that has it."""

import itertools
import time

from benchmarks import timing
from benchmarks.workloads import (
    BATCH_SIZE,
    CLIENT_RATE,
    SERVER_RATE,
    WORKLOADS,
    clients,
)

WATCH = timing.Stopwatch()


def model_class(torch, kind):
    """A `torch.nn.Module` with the losses and metrics that pfl asks for."""
    from pfl.metrics import Weighted

    nn, functional = torch.nn, torch.nn.functional

    def layers():
        if kind == "softmax":
            linear = nn.Linear(784, 10)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            return linear
        return nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(9216, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers()

        def forward(self, x):
            return self.layers(x)

        def loss(self, x, y, eval=False):
            self.train(not eval)
            return functional.cross_entropy(self(x), y)

        @torch.no_grad()
        def metrics(self, x, y, eval=False):
            self.eval()
            loss = functional.cross_entropy(self(x), y, reduction="sum").item()
            return {"loss": Weighted(loss, len(y))}

    return Classifier


def main():
    args = timing.arguments()
    work = WORKLOADS[args.workload]
    data = clients(args.workload)
    with WATCH("import"):
        import torch
        from pfl.aggregate.simulate import SimulatedBackend
        from pfl.algorithm.base import NNAlgorithmParams
        from pfl.algorithm.federated_averaging import FederatedAveraging
        from pfl.callback.base import TrainingProcessCallback
        from pfl.data.federated_dataset import FederatedDataset
        from pfl.data.pytorch import PyTorchTensorDataset
        from pfl.data.sampling import MinimizeReuseUserSampler
        from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
        from pfl.metrics import Metrics
        from pfl.model.pytorch import PyTorchModel

    flat = work.model == "softmax"
    with WATCH("datasets"):
        users = [
            PyTorchTensorDataset(
                (
                    torch.from_numpy(
                        pixels.reshape(-1, 784) if flat else pixels[:, None]
                    ),
                    torch.from_numpy(labels.astype("int64")),
                ),
                user_id=i,
            )
            for i, (pixels, labels) in enumerate(data)
        ]
        sampler = MinimizeReuseUserSampler(list(range(len(users))))
        cohort = FederatedDataset(lambda user: users[user], sampler)
    with WATCH("build"):
        module = model_class(torch, work.model)()
        model = PyTorchModel(
            module,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(module.parameters(), lr=SERVER_RATE),
        )
        backend = SimulatedBackend(training_data=cohort, val_data=cohort)

    ends = []

    class Clock(TrainingProcessCallback):
        """Notes when each round ends, and ends the training in time."""

        def after_central_iteration(self, aggregate, model, *, central_iteration):
            ends.append(time.perf_counter())
            done = len(ends) - 1 - timing.WARM_UP
            long_enough = ends[-1] - ends[0] > args.seconds
            return done >= timing.LEAST_ROUNDS and long_enough, Metrics()

    begin = time.perf_counter()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=1 + timing.WARM_UP + timing.MOST_ROUNDS,
            evaluation_frequency=1_000_000,
            train_cohort_size=len(users),
            val_cohort_size=0,
        ),
        backend,
        model,
        NNTrainHyperParams(
            local_num_epochs=work.epochs,
            local_learning_rate=CLIENT_RATE,
            local_batch_size=BATCH_SIZE,
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Clock()],
        send_metrics_to_platform=False,
    )
    times = [after - before for before, after in itertools.pairwise(ends)]
    timing.write(
        args.result,
        times=times[timing.WARM_UP :],
        parts={**WATCH.parts, "first round": ends[0] - begin},
        peak=timing.peak_bytes(),
        data=sum(pixels.nbytes + labels.nbytes for pixels, labels in data),
        examples=work.epochs * sum(len(labels) for _, labels in data),
        version=torch.__version__,
    )


if __name__ == "__main__":
    main()
