"""The member's model and data behind one small interface, so that the daemon's life can be tested without either.

The base is hashed and loaded once, the data is read for the labels of each config: both are checked against the config
before the member commits to a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ledger.config import Config
from ledger.parents import Parent
from ledger.tensors import Weights
from node.proving import Trained, load_prover
from node.settings import DataSettings, Device
from proofs.texts import Texts
from proofs.words import Binding, SecretWords

if TYPE_CHECKING:
    from node.data import Dataset
    from node.model import LoadedBase, LoadedModel

OnStep = Callable[[int, int], None]


class Trainer(Protocol):
    """Raises LocalFault for a config that this member's model or data does not fit."""

    def warm_up(self) -> None:
        """Load what takes long, so that no round's commit phase is spent on it. Raises LocalFault."""

    def adopt(self, parents: Sequence[Parent]) -> None:
        """The parents of the mixture that is checked or trained next, which only the chain can name."""

    def check(self, config: Config) -> None:
        """Base digest, adapter layout, labels, number of rows, that each has something to learn; that gradients are per
        example (node.selftest); under a proof policy, that a proof can hold the rows."""

    def rows(self, config: Config) -> Sequence[bytes]:
        """Canonical bytes of every row, in order: what the dataset root commits to where nothing is proven."""

    def texts(self, config: Config) -> Texts:
        """Every row as the model is given it, in the same order: what the dataset root commits to under a proof."""

    def train(
        self, config: Config, weights: Weights, words: SecretWords, beacon: bytes, binding: Binding, on_step: OnStep
    ) -> Trained:
        """The released sums, and what they are made of."""


class ModelTrainer:
    """The real one. torch, peft and transformers are loaded when it is first used."""

    def __init__(self, model_path: str, data: DataSettings, device: Device, *, checkpointing: bool = False) -> None:
        self._model_path, self._data = model_path, data
        self.device, self.checkpointing = device, checkpointing
        self._base: LoadedBase | None = None
        self._tested: bytes | None = None
        self._parents: Sequence[Parent] = ()
        self._dataset: tuple[tuple[str, ...], Dataset] | None = None

    def warm_up(self) -> None:
        import node.training  # noqa: F401 - torch, peft, opacus and transformers, for what comes later

        load_prover()
        self.base()

    def adopt(self, parents: Sequence[Parent]) -> None:
        self._parents = parents

    def attach(self, config: Config) -> LoadedModel:
        """The base with the config's adapter. Raises as `node.model.attach` does."""
        from node.model import attach

        return attach(self.base(), config, self._parents if config.adapter.parents else ())

    def check(self, config: Config) -> None:
        from node.selftest import check_gradients

        self.dataset(config).check_capacity(config.privacy.capacity)
        self.check_lengths(config)
        if config.proven:
            self.texts(config)
        if self._tested != config.digest:
            check_gradients(self, config)
            self._tested = config.digest

    def rows(self, config: Config) -> Sequence[bytes]:
        return self.dataset(config).rows

    def texts(self, config: Config) -> Texts:
        data = self.dataset(config)
        return Texts.of(self.base().encode(data.texts, config.task), data.labels, config.task.max_tokens)

    def check_lengths(self, config: Config) -> None:
        """Under next-token, that each text has tokens to predict. Raises NothingToPredict, naming the first without."""
        from node.model import NothingToPredict

        if config.task.kind != "next-token":
            return
        for number, ids in enumerate(self.base().encode(self.dataset(config).texts, config.task), start=1):
            if len(ids) < 2:
                raise NothingToPredict(
                    f"{self._data.path}: text {number} is one token long, so there is nothing to predict in it; "
                    "remedy: drop the row"
                )

    def train(
        self, config: Config, weights: Weights, words: SecretWords, beacon: bytes, binding: Binding, on_step: OnStep
    ) -> Trained:
        from node.training import TrainingJob, train

        job = TrainingJob(
            config, self.attach(config), self.dataset(config), weights, words, beacon, binding, self.device
        )
        return train(replace(job, checkpointing=self.checkpointing), on_step)

    def base(self) -> LoadedBase:
        from node.model import load_base

        if self._base is None:
            self._base = load_base(self._model_path)
        return self._base

    def dataset(self, config: Config) -> Dataset:
        """Read once for each list of labels, or for none: what was committed to is what is trained on."""
        from node.data import load_dataset

        data, labels = self._data, config.task.labels
        if self._dataset is None or self._dataset[0] != labels:
            loaded = load_dataset(data.path, data.format, data.text_column, data.label_column, labels)
            self._dataset = labels, loaded
        return self._dataset[1]
