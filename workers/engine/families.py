"""The engine of a family, chosen by name. Importing this module imports no engine: that is slow, and one is enough."""

from orchestrator.wire import EngineFamily, InferWork
from workers.engine.engine import Engine, Need


def make_engine(work: InferWork, need: Need) -> Engine:
    """The engine that `work` names, not yet started."""
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
