"""Builds the demo's two models on the spot: tiny Llamas with a tokenizer of their own, one of them trained.

Both have the same shape and the same start. `tiny-untrained` stays as it was initialised; `tiny-trained` learns the
training text of the demo tasks for about a minute on two CPU cores, never a test document: its lead is earned.
Run by hand: `python -m deploy.demo.models FOLDER`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from deploy.demo import TRAINED, UNTRAINED, are_built
from workers.harness.tasks.demo.generate import training_text

SEED = 7
VOCABULARY = 512
CONTEXT = 512
STEPS = 200
BATCH = 16
SPAN = 160
"""Tokens of a training row: room for several solved documents of any task."""
LEARNING_RATE = 4e-3

Say = Callable[[str], None]


def build_models(folder: Path, *, say: Say = print) -> tuple[Path, Path]:
    """The folders of the untrained and the trained model below `folder`; built once, then found again."""
    untrained, trained = folder / UNTRAINED, folder / TRAINED
    if are_built(folder):
        return untrained, trained
    text = training_text()
    tokenizer = make_tokenizer(text)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(make_config(tokenizer.get_vocab_size()))
    write_model(untrained, model, tokenizer, note="Only initialised: what it answers is noise.")
    train(model, tokenizer, text, say=say)
    write_model(trained, model, tokenizer, note=f"Trained for {STEPS} steps on the training text of the demo tasks.")
    return untrained, trained


def make_tokenizer(text: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def make_config(vocabulary: int) -> LlamaConfig:
    # Heads are 32 wide, which every attention kernel of vLLM has. Wide initial weights make even the untrained model
    # answer by what it reads, not always the same.
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.08,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, text: list[str], *, say: Say) -> None:
    """Fit the model to the text; the same text, seed and torch give the same weights."""
    # Every step waits for its slowest thread: a core is left to the rest of the machine, or a busy one costs tenfold.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    rows = training_rows(tokenizer, text)
    draw = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    model.train()
    told = started = time.monotonic()
    for step in range(1, STEPS + 1):
        batch = rows[torch.randint(len(rows), (BATCH,), generator=draw)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        if time.monotonic() - told > 10 or step == STEPS:
            told = time.monotonic()
            say(f"  trained {step} of {STEPS} steps, loss {loss.item():.3f}, {told - started:.0f} s")
    model.eval()


def training_rows(tokenizer: Tokenizer, text: list[str]) -> torch.Tensor:
    """Rows without padding: the pieces of text one after the other, each between BOS and EOS, cut every SPAN tokens."""
    stream = [token for encoded in tokenizer.encode_batch(text) for token in (*encoded.ids, 1)]
    return torch.tensor(stream[: len(stream) // SPAN * SPAN]).view(-1, SPAN)


def write_model(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, *, note: str) -> None:
    """A folder like a Hub repository. The card is written last and says that the folder is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"# {folder.name}\n\n"
        f"A tiny Llama of Evalyard's demo. {note} It is of no use but to show a board with two rows.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build_models(Path(sys.argv[1]))
