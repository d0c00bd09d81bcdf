"""The engine of a family, chosen by name. Importing this module imports no engine: that is slow, and one is enough."""

from orchestrator.wire import EngineFamily, FailureKind, InferWork
from workers.engine.engine import Engine, Need
from workers.stage import StageFailure


def make_engine(work: InferWork, need: Need) -> Engine:
    """The engine that `work` names, not yet started."""
    if work.model.weight_type == "adapter" and work.engine is not EngineFamily.SCRIPTED:
        raise StageFailure(
            FailureKind.ARCHITECTURE,
            f"Model {work.model.name} is an adapter, and adapters are not run yet. Merge it into its base model and "
            "submit the merged weights.",
        )
    match work.engine:
        case EngineFamily.SCRIPTED:
            from workers.engine.scripted import ScriptedEngine

            return ScriptedEngine(work.settings, footprint=work.footprint)
        case EngineFamily.TRANSFORMERS:
            from workers.engine.transformers import TransformersEngine

            return TransformersEngine(work)
        case EngineFamily.VLLM:
            from workers.engine.vllm import VllmEngine

            return VllmEngine(work, need)
