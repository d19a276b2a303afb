"""Train candor-tiny from nothing, on one thread: `python -m devnet.tiny.train [FOLDER]`, about ten minutes.

Objective: the next byte of a public column (devnet.tiny.corpus), whose end mark is followed by its mood. The bytes are
weighted so that the mood is not drowned. Writes config.json, tokenizer files and model.safetensors (float32, < 1 MiB)
in Hugging Face's format, which any tool loads; a classification head comes later, on top.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from devnet.tiny.corpus import Column, columns

FOLDER = Path(__file__).parent / "model"
PAD, BEGIN, END = "<pad>", "<s>", "</s>"
MAX_TOKENS = 256
STEPS, BATCH, PEAK_RATE, WARM_UP = 1500, 32, 4e-3, 60
MOOD_WEIGHT = 8.0
SEED = 20261


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte: 256 bytes without merges, and three marks. A text becomes <s> bytes </s>."""
    names = [PAD, BEGIN, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, 1), (END, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, bos_token=BEGIN, eos_token=END, model_max_length=MAX_TOKENS
    )


def shape() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        initializer_range=0.08,
    )


def batch_of(part: list[Column], coder: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, T), zero-padded on the right, and the weight of predicting each of them (n, T)."""
    texts = [coder.encode(column.text) for column in part]
    moods = [coder.encode(column.mood, add_special_tokens=False) for column in part]
    width = max(len(text) + len(mood) for text, mood in zip(texts, moods, strict=True))
    ids, weights = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width)
    for row, (text, mood) in enumerate(zip(texts, moods, strict=True)):
        ids[row, : len(text) + len(mood)] = torch.tensor(text + mood)
        weights[row, : len(text)] = 1.0
        weights[row, len(text)] = MOOD_WEIGHT
    return ids, weights


def step_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()


def train() -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    coder, model = tokenizer(), LlamaForCausalLM(shape())
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min((t + 1) / WARM_UP, max(0.02, 1 - t / STEPS)))
    corpus, started = columns(STEPS * BATCH, SEED), time.monotonic()
    for step in range(STEPS):
        loss = step_loss(model, *batch_of(corpus[step * BATCH : (step + 1) * BATCH], coder))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}/{STEPS}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return model


def main(folder: Path = FOLDER) -> None:
    model = train()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
