"""A model as somebody wants it evaluated: what checks judge. Pure."""

from dataclasses import dataclass

from orchestrator.wire import EngineFamily, Precision
from submissions import adapters
from submissions.facts import ModelFacts


@dataclass(frozen=True)
class Case:
    """A model as somebody wants it evaluated."""

    model: ModelFacts
    base: ModelFacts | None = None
    """The base model of an adapter."""
    precision: Precision | None = None
    """None asks for `auto`."""
    weight_type: str = "original"
    chat_template: bool = False
    engine: EngineFamily = EngineFamily.VLLM
    has_gpu: bool | None = None
    """Whether any engine worker has a GPU; None when no engine worker is known."""

    @property
    def is_adapter(self) -> bool:
        return self.weight_type == "adapter"

    @property
    def holds_adapter(self) -> bool:
        """Whether the repository is an adapter, whatever it was submitted as; some whole models keep one beside."""
        return self.model.adapter_config is not None and (self.is_adapter or self.model.config is None)

    @property
    def objection(self) -> str | None:
        """What stands against applying the adapter, whatever its base is."""
        return adapters.objection(self.model.adapter_config or {}, self.engine) if self.holds_adapter else None

    @property
    def whole(self) -> ModelFacts | None:
        """The model whose config counts: an adapter's base, else the model itself."""
        return self.base if self.is_adapter else self.model

    @property
    def speaker(self) -> ModelFacts | None:
        """The model whose tokenizer and chat template count: an adapter that was saved with one brings its own."""
        return self.model if self.is_adapter and self.model.has_tokenizer else self.whole

    @property
    def whole_field(self) -> str:
        return "base_model" if self.is_adapter else "model"
