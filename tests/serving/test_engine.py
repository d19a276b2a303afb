"""What the engine says follows from prompt, model and decoding alone: not from what else is asked, nor from when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from ledger.log.receipt import Decoding
from node import choosing
from node.choosing import Writing, choose, margin, uniform
from node.engine import Engine, PromptRefused
from node.serving.engine import Job, Outcome, Step

GREEDY = Decoding(24, Fraction(0), Fraction(1), 0, 0)
DRAWN = Decoding(24, Fraction(7, 10), Fraction(9, 10), 40, 5)
PROMPTS = ("A small shop: pays on", "The owner", "Re: loan", "One of our older clients never missed a payment; the")


def jobs(engine: Engine, decoding: Decoding = DRAWN, prompts: tuple[str, ...] = PROMPTS) -> list[Job]:
    return [
        Job(tuple(engine.encode(text)), replace(decoding, seed=decoding.seed + n)) for n, text in enumerate(prompts)
    ]


def generate(engine: Engine, asked: list[Job], steps: list[Step] | None = None) -> list[Outcome]:
    return engine.generate(asked, (steps if steps is not None else []).append, lambda job: False)


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN])
def test_a_job_says_the_same_alone_and_in_any_company(language: Engine, decoding: Decoding) -> None:
    """Prompts of other lengths beside it, answers that end before it, another order."""
    asked = jobs(language, decoding)
    asked[1] = replace(asked[1], decoding=replace(asked[1].decoding, max_tokens=3))
    together = generate(language, asked)
    turned = generate(language, asked[::-1])[::-1]
    alone = [generate(language, [job])[0] for job in asked]
    assert [each.tokens for each in together] == [each.tokens for each in alone] == [each.tokens for each in turned]
    assert len(together[1].tokens) == 3
    assert [each.text for each in together] == [each.text for each in alone]


def test_greedy_tokens_are_those_of_a_whole_pass_without_a_cache(language: Engine) -> None:
    [job] = jobs(language, GREEDY, PROMPTS[:1])
    said, ids = generate(language, [job])[0], list(job.tokens)
    for token in said.tokens[:12]:
        with torch.no_grad():
            scores = language.model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        assert int(scores.argmax()) == token
        ids.append(token)


def test_the_adapter_speaks_too(make_engine: Any) -> None:
    """Another bundle on the same base says something else."""
    one, other = make_engine("language"), make_engine("language", 4)
    assert generate(one, jobs(one, GREEDY))[0].text != generate(other, jobs(other, GREEDY))[0].text


def test_steps_add_up_to_the_answer(language: Engine) -> None:
    steps: list[Step] = []
    asked = jobs(language)
    said = generate(language, asked, steps)
    for number, outcome in enumerate(said):
        own = [step for step in steps if step.job == number]
        assert tuple(step.token for step in own) == outcome.tokens
        assert "".join(step.text for step in own) == outcome.text
        assert [step.finish for step in own] == [""] * (len(own) - 1) + [outcome.finish]


def test_another_seed_says_something_else_and_the_same_seed_the_same(language: Engine) -> None:
    [job] = jobs(language, DRAWN, PROMPTS[1:2])
    again, other = job, replace(job, decoding=replace(job.decoding, seed=99))
    said = generate(language, [job, again, other])
    assert said[0] == said[1]
    assert said[0].tokens != said[2].tokens


def test_a_stop_text_ends_the_answer_before_it_and_is_never_told(language: Engine) -> None:
    [job] = jobs(language, GREEDY, PROMPTS[:1])
    whole = generate(language, [job])[0]
    stop = whole.text[6:9]
    steps: list[Step] = []
    decoding = replace(job.decoding, stop=("nowhere", stop))
    cut = generate(language, [Job(job.tokens, decoding)], steps)[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == "stop"
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert "".join(step.text for step in steps) == cut.text
    assert steps[-1].finish == "stop"


def test_the_end_mark_ends_the_answer(language: Engine) -> None:
    """The base was trained on columns that end; at some temperature one of these does."""
    asked = [replace(job, decoding=replace(job.decoding, max_tokens=150)) for job in jobs(language)]
    ended = [each for each in generate(language, asked) if each.finish == "stop"]
    assert ended
    for outcome in ended:
        assert outcome.tokens[-1] == language.model.base.tokenizer.eos_token_id
        assert "</s>" not in outcome.text


def test_a_job_that_is_stopped_is_left_where_it_is(language: Engine) -> None:
    asked, steps = jobs(language, GREEDY), list[Step]()
    told = Counter[int]()

    def on_step(step: Step) -> None:
        steps.append(step)
        told[step.job] += 1

    said = language.generate(asked, on_step, lambda job: job == 0 and told[0] >= 5)
    whole = generate(language, asked)
    assert said[0].tokens == whole[0].tokens[:5]
    assert whole[0].text.startswith(said[0].text)
    assert [each.tokens for each in said[1:]] == [each.tokens for each in whole[1:]]
    assert language.generate(asked[:1], on_step, lambda job: True)[0].tokens == ()
    assert generate(language, []) == []


def test_an_answer_ends_where_the_model_does(language: Engine) -> None:
    prompt = tuple(language.encode("x" * (language.max_tokens - 4)))
    assert len(prompt) == language.max_tokens - 3
    said = generate(language, [Job(prompt, replace(GREEDY, max_tokens=50))])[0]
    assert len(said.tokens) <= 3
    with pytest.raises(PromptRefused):
        generate(language, [Job((*prompt, 70, 70, 70, 70), GREEDY)])
    with pytest.raises(PromptRefused):
        generate(language, [Job((), GREEDY)])


def test_a_prompt_has_one_begin_mark_and_no_end(language: Engine) -> None:
    assert language.encode("ab") == [1, *language.model.base.tokenizer("ab", add_special_tokens=False)["input_ids"]]
    assert language.encode("<s>ab") == language.encode("ab")


def test_a_conversation_becomes_a_prompt(language: Engine) -> None:
    said = [{"role": "system", "content": "be short"}, {"role": "user", "content": "hello"}]
    assert language.chat(said) == "system: be short\nuser: hello\nassistant:"
    tokenizer = language.model.base.tokenizer
    try:
        tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        assert language.chat(said) == "[system]be short[user]hello"
        tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
        with pytest.raises(PromptRefused):
            language.chat(said)
    finally:
        tokenizer.chat_template = None


# ---- classification


def test_a_text_has_the_same_scores_alone_and_in_any_company(classifier: Engine) -> None:
    texts = [classifier.encode(text) for text in PROMPTS]
    together = classifier.classify(texts)
    for text, found in zip(texts, together, strict=True):
        assert found.scores == pytest.approx(classifier.classify([text])[0].scores, abs=1e-5)
        assert sum(found.scores) == pytest.approx(1.0)
        assert found.label == max(range(3), key=found.scores.__getitem__)
    assert classifier.model.predict(list(PROMPTS)) == [found.label for found in together]
    assert (classifier.task, classifier.labels, classifier.max_tokens) == (
        "classification", ("repay", "watch", "default"), 64,
    )  # fmt: skip


def test_each_task_refuses_the_others_requests(language: Engine, classifier: Engine) -> None:
    with pytest.raises(PromptRefused):
        language.classify([[1, 2]])
    with pytest.raises(PromptRefused):
        generate(classifier, [Job((1, 70), GREEDY)])
    with pytest.raises(PromptRefused):
        classifier.classify([[70] * 65])


# ---- choosing


def test_uniforms_are_the_same_for_ever() -> None:
    assert uniform(0, 0) == 0.22454208985481272
    assert uniform(0, 1) != uniform(1, 0)
    draws = np.array([uniform(7, place) for place in range(2000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(draws.std() - 12**-0.5) < 0.02


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    scores = np.log(np.array([0.5, 0.1, 0.4], np.float32))
    found = Counter(choose(scores, replace(DRAWN, temperature=Fraction(1), top_p=Fraction(1)), n) for n in range(3000))
    assert found[0] / 3000 == pytest.approx(0.5, abs=0.03)
    assert found[1] / 3000 == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, "1", {0, 1, 2, 3}),
        (2, "1", {0, 2}),
        (1, "1", {0}),
        (0, "1/2", {0}),
        (0, "51/100", {0, 2}),
        (3, "1/1000", {0}),
    ],
)
def test_what_is_unlikely_is_left_out(top_k: int, top_p: str, kept: set[int]) -> None:
    """Of two alike (1 and 3) the first counts as the likelier."""
    scores = np.log(np.array([0.5, 0.125, 0.25, 0.125], np.float32))
    decoding = Decoding(1, Fraction(1), Fraction(top_p), top_k, 1)
    assert {choose(scores, decoding, place) for place in range(200)} == kept


def test_noise_in_the_scores_moves_no_token_but_one_at_an_edge() -> None:
    random = np.random.default_rng(1)
    decoding, moved = replace(DRAWN, top_k=0, top_p=Fraction(1)), 0
    for place in range(300):
        scores = random.normal(0, 3, 500).astype(np.float32)
        noisy = scores + random.normal(0, 1e-6, 500).astype(np.float32)
        chosen = choose(scores, decoding, place)
        moved += choose(noisy, decoding, place) != chosen
        assert margin(noisy, decoding, place, chosen) < 1e-4
    assert moved <= 1


def test_a_margin_tells_how_far_a_token_is_from_being_chosen() -> None:
    scores = np.log(np.array([0.25, 0.25, 0.5], np.float32))
    decoding = replace(DRAWN, temperature=Fraction(1), top_p=Fraction(1), top_k=0)
    place = next(n for n in range(100) if 0.3 < uniform(decoding.seed, n) < 0.45)
    drawn = uniform(decoding.seed, place)
    found = [margin(scores, decoding, place, token) for token in range(3)]
    assert found == pytest.approx([drawn - 0.25, 0.0, 0.5 - drawn], abs=1e-6)
    assert margin(scores, replace(decoding, top_k=1), place, 0) == 1.0
    assert margin(scores, GREEDY, place, 0) == pytest.approx(np.log(2), abs=1e-6)


# ---- writing


def write(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], Writing]:
    """Tokens are bytes, decoded as byte-level tokenizers do."""
    writing = Writing(lambda tokens: b"".join(pieces[t] for t in tokens).decode(errors="replace"), stop, ())
    told = []
    for token in range(len(pieces)):
        told.append(writing.add(token))
        if writing.stopped:
            break
    return [*told, writing.end()], writing


def test_a_text_never_holds_half_a_character() -> None:
    data = "naïve €9 🙂!".encode()
    told, writing = write([bytes([byte]) for byte in data])
    assert writing.text == "".join(told) == "naïve €9 🙂!"
    assert not any(choosing.HALF in each for each in told)
    assert told.count("") == 1 + 2 + 3 + 1, "held back until they are whole; nothing is left at the end"


def test_a_character_that_is_cut_off_is_dropped_and_bytes_that_are_none_are_marked() -> None:
    assert write([b"a", b"\xe2", b"\x82"])[1].text == "a"
    assert write([b"a", b"\xff", b"b"])[1].text == f"a{choosing.HALF}b"


def test_what_may_become_a_stop_text_is_held_back() -> None:
    told, writing = write([b"ab", b"E", b"N", b"d", b"E", b"ND", b"x"], ("END", "zz"))
    assert told == ["ab", "", "", "ENd", "", "", ""]
    assert (writing.text, writing.stopped) == ("abENd", True)
    assert write([b"aE", b"N"], ("END",))[1].text == "aEN", "it did not become one"
    assert write([b"xEND"], ("ENDE", "END"))[1].text == "x"
