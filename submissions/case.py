"""A model as somebody wants it evaluated: what checks judge. Pure."""

from dataclasses import dataclass, field

from orchestrator.wire import EngineFamily, Precision
from submissions import adapters
from submissions.facts import ModelFacts
from submissions.fleet import Fleet


@dataclass(frozen=True)
class Rules:
    """What this site asks of models, beside that they can be evaluated."""

    least_card: int = 0
    """Characters of the shortest model card that is accepted; 0 asks for none."""
    asks_licence: bool = False
    denied: frozenset[str] = frozenset()
    """Models that are not evaluated, in lower case: `org/name` or `org/*`."""

    def denies(self, name: str) -> bool:
        asked = name.casefold()
        return asked in self.denied or ("/" in asked and f"{asked.partition('/')[0]}/*" in self.denied)


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
    fleet: Fleet = field(default_factory=Fleet)
    rules: Rules = field(default_factory=Rules)
    asked_names: tuple[str, ...] = ()
    """What the submitter called the model and its base; repositories may have new names since."""
    template_fault: str | None = None
    """What is wrong with the chat template, where it is to be applied and was tried; the end of a sentence."""

    @property
    def has_gpu(self) -> bool | None:
        """Whether any engine worker has a GPU; None when no engine worker is known."""
        return self.fleet.has_gpu

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
