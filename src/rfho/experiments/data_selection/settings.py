"""The settings of the experiment."""

import dataclasses

from rfho.experiments.data_selection.documents import TEXTS
from rfho.runs.settings import SettingsError, above, at_least, between, setting

LOOKS = 8
"""How often a model is judged in its first ``final`` steps, and so on after them."""


@dataclasses.dataclass(frozen=True)
class SelectionSettings:
    """The documents, the transformer, and how documents are chosen."""

    data: str = setting("packages", "text: packages or tiny-shakespeare", TEXTS)
    documents: int = setting(128, "documents to train on", at_least(8))
    held_out: int = setting(32, "clean documents to choose by; as many test", at_least(2))
    spoilt: float = setting(0.5, "part of the documents that is spoilt", between(0, 0.9))
    context: int = setting(32, "characters that the model sees at most", at_least(3))
    pieces: int = setting(4, "windows of context + 1 characters in a document", at_least(1))
    width: int = setting(16, "of the transformer", at_least(4))
    heads: int = setting(2, "of the attention; must divide the width", at_least(1))
    layers: int = setting(1, "of the transformer; without any it sees one character", at_least(0))
    batch: int = setting(8, "documents in a batch", at_least(1))
    rate: float = setting(0.003, "of Adam", above(0))
    horizon: int = setting(64, "training steps T of the whole run", at_least(1))
    horizons: tuple[int, ...] = setting((16,), "shorter horizons; each must divide T", at_least(1))
    rounds: int = setting(1, "of metagradient descent", at_least(1))
    starts: int = setting(2, "runs that a derivative is the mean of", at_least(1))
    share: float = setting(
        1.0, "of the documents, those of the largest derivatives, that may move", between(0, 1)
    )
    trust: float = setting(
        1.0, "errors of the mean that what moves must exceed; 0 for any sign", at_least(0)
    )
    final: int = setting(
        128, "steps of the last model of the dearest method; others take more", at_least(LOOKS)
    )
    repeats: int = setting(1, "seeds: seed, seed + 1, …", at_least(1))
    seed: int = setting(0, "of text, network and batches", at_least(0))

    def __post_init__(self) -> None:
        for horizon in self.horizons:
            if self.horizon % horizon:
                raise SettingsError(
                    f"horizons = {list(self.horizons)}: {horizon} must divide horizon = {self.horizon}"
                )
        if self.share == 0:
            raise SettingsError(
                "share = 0: no document would move; it must be above 0, and at most 1"
            )
        if self.trust and self.starts == 1:
            raise SettingsError(
                f"trust = {self.trust}, starts = 1: one derivative says nothing of its error; "
                "set trust = 0, or more starts"
            )
