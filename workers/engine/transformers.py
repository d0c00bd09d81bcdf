"""The reference engine: Hugging Face transformers in torch, one request at a time, as lm-eval's `hf` at batch 1.

Exact before fast: every input is computed alone and without padding. Requests whose input ids are equal (one-token
continuations of a context) share one forward pass, as lm-eval's logits cache does it.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.footprint import quantization
from orchestrator.wire import FailureKind, InferWork, Precision
from workers.engine import lora
from workers.engine.adapter import find_adapter
from workers.engine.engine import refuse_unknown_settings
from workers.engine.weights import check_weights, read_config
from workers.models import code as model_code
from workers.models.folders import tokenizer_folder, whole_folder
from workers.segments import Generated, Response, Scored
from workers.sheets import Generate, Loglikelihood, Request
from workers.stage import StageFailure

if TYPE_CHECKING:
    import torch

DEFAULTS: dict[str, Any] = {"attn_implementation": None, "threads": None}


class TransformersEngine:
    def __init__(self, work: InferWork) -> None:
        refuse_unknown_settings(work.settings, tuple(DEFAULTS))
        self._work = work
        self.settings: dict[str, Any] = DEFAULTS | work.settings
        self.tokens_computed = 0
        self.tokens_reused = 0
        self._waiting: deque[list[Request]] = deque()
        self._device = "cpu"

    def start(self) -> None:
        work = self._work
        if work.model_folder is None:
            raise StageFailure(FailureKind.WEIGHTS, "The work names no model folder. Give `model_folder`.")
        folder = whole_folder(work.model, work.model_folder)
        config = read_config(folder)
        check_weights(folder)
        if (folder / "adapter_config.json").is_file():
            # With peft installed transformers would apply it, and open a pickled one; vLLM never looks at it.
            raise StageFailure(
                FailureKind.WEIGHTS,
                f"Model {work.model.base_name or work.model.name} has an adapter beside its weights, and it is not "
                "plain which of them counts. Remove adapter_config.json, or submit the merged weights alone.",
            )
        adapter = find_adapter(work)
        if adapter is not None:
            lora.require_peft(work.model)
        options = self._precision_options(config)
        model_code.forbid()

        import torch
        import transformers

        if self.settings["threads"]:
            torch.set_num_threads(int(self.settings["threads"]))
        if self.settings["attn_implementation"]:
            options["attn_implementation"] = self.settings["attn_implementation"]
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(
            tokenizer_folder(work.model, work.model_folder), trust_remote_code=False
        )
        self._model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **({} if self._device == "cpu" else {"device_map": {"": self._device}}),
            **options,
        )
        if missing := sorted(loaded["missing_keys"]):
            raise StageFailure(
                FailureKind.WEIGHTS,
                f"The weights of {self._work.model.name} lack {len(missing)} tensors that its config asks for, among "
                f"them {missing[0]}. Upload the complete weights.",
            )
        if adapter is not None:
            self._model = lora.wrap(self._model, work.model, adapter)
        self._model.eval()
        self.settings |= {
            "attn_implementation": getattr(self._model.config, "_attn_implementation", None),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    def wants_more(self) -> bool:
        return not self._waiting

    def wants_generations(self) -> bool:
        return True

    def submit(self, group: Sequence[Request]) -> None:
        # One forward pass for each distinct input: the unit that one step answers.
        inputs: dict[tuple[int, ...], list[Request]] = {}
        for request in group:
            if isinstance(request, Generate):
                self._waiting.append([request])
            else:
                inputs.setdefault(tuple(_input(request)), []).append(request)
        self._waiting.extend(inputs.values())

    def busy(self) -> bool:
        return bool(self._waiting)

    def step(self) -> list[Response]:
        if not self._waiting:
            return []
        shared = self._waiting.popleft()
        if isinstance(shared[0], Generate):
            return [self._generate(shared[0])]
        return self._score([request for request in shared if isinstance(request, Loglikelihood)])

    def _score(self, shared: list[Loglikelihood]) -> list[Response]:
        import torch

        ids = _input(shared[0])
        if len(ids) < max(len(request.continuation) for request in shared):
            raise StageFailure(
                FailureKind.HARNESS,
                f"Request {shared[0].id} scores a continuation without any context token; no engine can do that. "
                "Prepare the sheet again.",
            )
        with torch.no_grad():
            # log_softmax in the model's own dtype, as lm-eval takes it.
            logits = self._model(torch.tensor([ids], device=self._device)).logits
            logprobs = torch.log_softmax(logits[0], dim=-1)
        self.tokens_computed += len(ids)
        self.tokens_reused += len(ids) * (len(shared) - 1)
        return [_pick(request, logprobs) for request in shared]

    def _generate(self, request: Generate) -> Generated:
        """What lm-eval's `_model_generate` does with one prompt; the text still contains its stop string."""
        import torch
        import transformers

        options = dict(request.sampling)
        options["temperature"] = options.get("temperature", 0.0)
        if options["temperature"] == 0.0 and options.get("do_sample") is None:
            options["do_sample"] = False
        if options.get("do_sample") is False and options["temperature"] == 0.0:
            options.pop("temperature")
        if request.seed is not None:
            torch.manual_seed(request.seed)
        prompt = torch.tensor([request.prompt], device=self._device)
        criteria = [_stop_at(stop, self._tokenizer, len(request.prompt)) for stop in request.stop]
        with torch.no_grad():
            output = self._model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_length=len(request.prompt) + request.max_tokens,
                stopping_criteria=transformers.StoppingCriteriaList(criteria),
                logits_processor=transformers.LogitsProcessorList([self._refuse_nan]),
                pad_token_id=self._pad_token(),
                use_cache=True,
                **options,
            )
        tokens: list[int] = output[0, len(request.prompt) :].tolist()
        self.tokens_computed += len(request.prompt) + len(tokens)
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return Generated(request.id, text, tokens, "length" if len(tokens) >= request.max_tokens else "stop")

    def _refuse_nan(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """A logits processor that changes nothing: a broken model would generate its first token for ever."""
        if bool(scores.isnan().any()):
            raise StageFailure(
                FailureKind.INVALID_OUTPUT,
                f"Model {self._work.model.name} computes NaN while it generates. Its weights are broken, or overflow "
                "at this precision: check them, or submit it as float32.",
            )
        return scores

    def _pad_token(self) -> int | None:
        """The padding token that lm-eval configures; without padding it only silences a warning."""
        for name in ("pad_token_id", "unk_token_id", "eos_token_id"):
            if (token := getattr(self._tokenizer, name, None)) is not None:
                return int(token)
        return None

    def _precision_options(self, config: dict[str, Any]) -> dict[str, Any]:
        precision, dtype = self._work.model.precision, self._work.identity.get("dtype")
        if precision in (Precision.BFLOAT16, Precision.FLOAT16, Precision.FLOAT32):
            return {"dtype": precision.value}
        if precision is Precision.GPTQ:
            if quantization(config).get("quant_method") != "gptq":
                raise StageFailure(
                    FailureKind.PRECISION,
                    f"Model {self._work.model.name} is not quantised with GPTQ. Choose the precision of its weights.",
                )
            _require("gptqmodel", "gptq")
            return {"dtype": dtype}
        _require("bitsandbytes", precision.value)
        import transformers

        eight = precision is Precision.EIGHT_BIT
        bits = transformers.BitsAndBytesConfig(
            load_in_8bit=eight, load_in_4bit=not eight, bnb_4bit_compute_dtype=None if eight else dtype
        )
        return {"dtype": dtype, "quantization_config": bits}


def _input(request: Request) -> list[int]:
    assert isinstance(request, Loglikelihood)
    return (request.context + request.continuation)[:-1]


def _pick(request: Loglikelihood, logprobs: "torch.Tensor") -> Scored:
    """Sum over the continuation's rows, which are the last ones of its input."""
    import torch

    rows = logprobs[-len(request.continuation) :]
    wanted = torch.tensor(request.continuation, device=rows.device)
    greedy = bool((rows.argmax(dim=-1) == wanted).all())
    return Scored(request.id, float(rows.gather(-1, wanted.unsqueeze(-1)).squeeze(-1).sum()), greedy)


def _stop_at(stop: str, tokenizer: Any, prompt_length: int) -> Any:
    """lm-eval's stopping rule: the stop string occurs in the decoded last tokens, never looking into the prompt."""
    import transformers

    look_back = len(tokenizer.encode(stop, add_special_tokens=False)) + 2

    class StopAt(transformers.StoppingCriteria):  # type: ignore[misc]  # untyped base
        def __call__(self, input_ids: "torch.Tensor", scores: Any, **_: Any) -> bool:
            tail = input_ids[:, prompt_length:][:, -look_back:]
            return stop in tokenizer.batch_decode(tail)[0]

    return StopAt()


def _require(package: str, precision: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise StageFailure(
            FailureKind.PRECISION,
            f"Precision {precision} needs {package}, which this worker's environment does not have. Install it there, "
            "or choose bfloat16, float16 or float32.",
        )
