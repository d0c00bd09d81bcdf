"""A tiny Llama model in a folder of its own: real tokenizer, real safetensors, seeded, made in about a second.

For tests that need a model every engine can load. It answers nonsense, always the same; it is never a stand-in for
an engine. Torch is not needed to make one.
"""

import json
import random
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Starts with the BOS text, as most published templates do: encoding it again must not double the BOS."""

WORDS = [
    "the", "a", "cat", "dog", "bird", "fish", "fox", "runs", "sleeps", "sings", "swims", "jumps", "over", "under",
    "near", "red", "blue", "green", "small", "big", "old", "house", "tree", "river", "garden", "and", "then", "it",
    "was", "very", "happy", "sad", "Question", "Answer", "Choices", "Which", "What", "is", "of", "in", "on", "to",
    "plus", "minus", "equals", "A", "B", "C", "D", "one", "two", "three", "four", "five", "six", "seven", "eight",
    "nine", "ten", "Mia", "Tom", "Ana", "Ben", "likes", "eats", "finds", "apple", "bread",
]  # fmt: skip


def build_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 64,
    chat_template: bool = False,
    bos: bool = True,
    max_length: int = 2048,
    vocabulary: int = 640,
) -> Path:
    """Write config, tokenizer and float32 weights into `folder` and return it. Attention heads are 32 wide."""
    folder.mkdir(parents=True, exist_ok=True)
    size = _write_tokenizer(folder, vocabulary=vocabulary, chat_template=chat_template, bos=bos, max_length=max_length)
    heads = hidden // 32
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": hidden,
        "intermediate_size": hidden * 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": 32,
        "max_position_embeddings": max_length,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "float32",
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    generation = {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    _write_weights(folder, config, np.random.default_rng(seed))
    return folder


def sample_text(*, lines: int = 400, seed: int = 7) -> list[str]:
    """Lines of demo-like text: what the tokenizer is trained on."""
    draw = random.Random(seed)
    text = []
    for _ in range(lines):
        words = " ".join(draw.choices(WORDS, k=draw.randint(4, 12)))
        first, second = draw.randint(0, 20), draw.randint(0, 20)
        text.append(f"{words.capitalize()}.\n\nQuestion: What is {first} + {second}?\nAnswer: {first + second}\n")
    return text


def _write_tokenizer(folder: Path, *, vocabulary: int, chat_template: bool, bos: bool, max_length: int) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_text(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }
    if chat_template:
        settings["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    return tokenizer.get_vocab_size()


def _write_weights(folder: Path, config: dict[str, object], draw: np.random.Generator) -> None:
    hidden, inner, size = (int(str(config[key])) for key in ("hidden_size", "intermediate_size", "vocab_size"))

    def matrix(rows: int, columns: int, *, scale: float = 1.0) -> np.ndarray:
        return (draw.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": matrix(size, hidden, scale=np.sqrt(hidden)),
        "model.norm.weight": np.ones(hidden, dtype=np.float32),
        "lm_head.weight": matrix(size, hidden, scale=2.0),
    }
    for layer in range(int(str(config["num_hidden_layers"]))):
        prefix = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{prefix}self_attn.{name}.weight"] = matrix(hidden, hidden)
        tensors[prefix + "mlp.gate_proj.weight"] = matrix(inner, hidden)
        tensors[prefix + "mlp.up_proj.weight"] = matrix(inner, hidden)
        tensors[prefix + "mlp.down_proj.weight"] = matrix(hidden, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[prefix + name + ".weight"] = np.ones(hidden, dtype=np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
