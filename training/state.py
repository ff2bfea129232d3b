"""The state of a run: model, optimizer, averages and progress, all that weights/last.pth holds.

A run that was killed at any moment and resumed from there ends with the same bits as one that was not.
"""

import math
import sys
from collections import deque
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.processes import Processes
from common.schema import parse
from config import Config, differences, to_dict
from corpora.balance import epoch_batches
from corpora.trials import Trial
from training.folder import RunFolder
from training.model import load_initial, require_crops
from training.optimization import Stepper
from training.swa import WeightAverage
from utils import load_weights, rng_state, seed_everything, set_precision, set_rng_state


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0  # epochs done
    step: int = 0  # batches done of the next epoch
    loss_sum: float = 0.0  # over those batches
    seconds: float = 0.0  # spent on the epochs done
    best_dev_eer: float = math.inf  # fraction

    def __post_init__(self):
        if wrong := [f.name for f in fields(self) if type(getattr(self, f.name)) is not f.type]:
            raise TypeError(f"{wrong[0]} is {getattr(self, wrong[0])!r}")


class TrainingState:
    """The state of a run of `config` on the training `trials`, at first that of a new one.

    init: weights to start from, a file or a name. Raises UserError when configuration, trials and weights do not fit.
    """

    def __init__(
        self, config: Config, trials: list[Trial], device: torch.device, processes: Processes, init: str | None = None
    ):
        self.trials, self.processes = trials, processes
        self.trial_weights = np.array(config.class_weights)[[trial.label for trial in trials]]  # (N,)
        self.steps_per_epoch = len(trials) // config.batch_size
        if self.steps_per_epoch == 0:
            raise UserError("batch_size is too large", f"at most the {len(trials)} training trials", config.batch_size)
        seed_everything(config)
        set_precision(config.precision, device)
        self.model = load_initial(config, init).to(device)
        # Checkpoints hold all that building the model takes, also what an encoder adds to the given configuration.
        self.config = replace(config, model_config=self.model.model_config)
        require_crops(self.model, self.config, processes.size)
        self.stepper = Stepper(self.model, config, self.steps_per_epoch, processes.size)
        self.swa = WeightAverage(self.model, config)
        self.progress = Progress()
        self.losses: deque[tuple[int, Tensor]] = deque()  # (step, loss) that are not in progress.loss_sum yet
        self.diverged = 0  # the step of the epoch, from 1, whose loss was not finite

    def save(self, folder: RunFolder) -> None:
        """Write last.pth, the state of all processes."""
        self.drain_losses()
        self.require_finite()
        loss_sum = sum(self.processes.gather(self.progress.loss_sum))
        swa = {"swa_triggered": self.swa.triggered, "swa_epochs": self.swa.epochs}
        fields = {
            "config": to_dict(self.config),
            "model": self.model.state_dict(),
            "stepper": self.stepper.state_dict(),
            "swa": self.swa.averaged.state_dict(),
            "progress": asdict(self.progress) | {"loss_sum": loss_sum} | swa,
            "rng": self.processes.gather(rng_state()),
            "log_sizes": folder.log.sizes(),
        }
        folder.save("last", fields)

    def restore(self, last: dict, path: object) -> None:
        """Go back to the state in `last`, which was read from `path`. Raises UserError when it is of another run."""
        if "stepper" not in last:
            raise UserError(f"cannot resume from {path}", "one that this version saved", "an older one")
        if differ := differences(parse(Config, last["config"]), self.config):
            then, now = (", ".join(f"{name} {pair[i]}" for name, pair in differ.items()) for i in (0, 1))
            raise UserError(f"{path} is of a run with another configuration", then, f"{now} in config.conf")
        load_weights(self.model, last, path)
        try:
            self._restore_progress(last)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            found = f"{type(error).__name__}: {str(error)[:200]}"
            raise UserError(f"cannot resume from {path}", "the state that a run saves", found) from error

    def _restore_progress(self, last: dict) -> None:
        self.stepper.load_state_dict(last["stepper"])
        progress = dict(last["progress"])
        self.swa.restore(last["swa"], progress.pop("swa_epochs"), progress.pop("swa_triggered"))
        self.progress = Progress(**progress)
        self.progress.loss_sum /= self.processes.size  # it was the sum over all processes
        if len(last["rng"]) == self.processes.size:
            set_rng_state(last["rng"][self.processes.rank])
        else:
            print(f"note: saved by {len(last['rng'])} processes: dropout goes on differently", file=sys.stderr)

    def drain_losses(self, waiting: int = 0) -> None:
        """Add all losses but the newest `waiting` to `progress.loss_sum`."""
        while len(self.losses) > waiting:
            step, loss = self.losses.popleft()
            self.progress.loss_sum += loss.item()
            if not self.diverged and not math.isfinite(self.progress.loss_sum):
                self.diverged = step

    def require_finite(self, step: int | None = None) -> None:
        """Raises UserError naming the utterances of a batch whose loss was not finite in any process.

        step: of that batch (0: none), if the processes have agreed on it already.
        """
        if step is None:
            (step,) = self.processes.largest(self.diverged)
        if step:
            batch = epoch_batches(self.trials, self.config, self.progress.epoch)[step - 1]
            names = " ".join(self.trials[index].utt_id for index in batch)
            where = f"training diverged in epoch {self.progress.epoch + 1}, step {step}"
            raise UserError(where, "a finite loss", f"none, in the batch {names}")
